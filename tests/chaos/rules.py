"""The keys that say more than a capacity: what is configured, for the worlds that have them."""

from __future__ import annotations

from enum import Enum

PACED, STARTS, PERIOD_S = "root.paced", 6, 2
KEPT = "root.kept"
#: Of a channel or of the first database, and reserved.
MINIMUM = 1
#: The most that a database may hold.
MAXIMUM = 3


class Rules(Enum):
    """Whose minimum is reserved."""

    NONE = "none"
    CHANNEL = "channel"
    DATABASE = "database"


def channels(rules: Rules, *, is_cluster: bool) -> str:
    """The end of the channel string. Minimums of channels are of one supervisor."""
    if rules is Rules.NONE:
        return ""
    kept = f"{KEPT}:min={MINIMUM}:reserve" if rules is Rules.CHANNEL and not is_cluster else KEPT
    return f",{PACED}:rate={STARTS}/{PERIOD_S}s:weight=2,{kept}:weight=1"


def options(rules: Rules, first: str, *, is_cluster: bool) -> dict[str, object]:
    """Of the section [qjsupervisor]."""
    if rules is Rules.NONE:
        return {}
    reserve = ":reserve" if rules is Rules.DATABASE and not is_cluster else ""
    return {"db_capacity": f"{first}:min={MINIMUM}:max={MAXIMUM}{reserve},*:max={MAXIMUM}", "ageing": "5s"}
