"""Values as text for people: on a terminal, on the page, in messages.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def seconds(value: float) -> str:
    """'0.3 s', '42 s', '3 min', '2 h 05 min', '4 d 02 h': for people, rounded down."""
    if not math.isfinite(value):
        return "ever"
    if value < 10:
        return f"{max(value, 0.0):.1f} s"
    if value < 120:
        return f"{int(value)} s"
    minutes = int(value) // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that was probably meant. `cutoff`: 0 finds any word, 1 only the same."""
    # Few need it, and each process would have it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def printable(value: object) -> str:
    """One line in which only printable characters are left; the others are shown as escapes.

    This takes terminal control sequences, line ends, bidirectional overrides and lone surrogates.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def first_few(names: Sequence[str], limit: int) -> str:
    """'a, b, c and 9 more': at most `limit` names."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def running_of(root: Mapping[str, Any], counted: int) -> int:
    """How many jobs run, to stand beside the capacity of channel root: so many permits of it are in use.

    `counted`: the sum of what the databases report, each a moment later than the other; that may exceed the capacity.
    """
    return counted if root.get("capacity") is None else int(root.get("running", counted))


def same_uuid(names: Sequence[str]) -> str:
    """What is wrong with databases of one database.uuid that are served."""
    return (
        f"{', '.join(names)} have one database.uuid: one is a raw copy of the other, and both run their jobs;"
        " leave the copy out (databases_exclude), or give it a uuid of its own"
    )


#: Default of upgrade_timeout, which the screens leave out.
UPGRADE_TIMEOUT_S = 3600.0
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_PERIODS = {1: "this second", 60: "this minute", 3600: "this hour", 86400: "this day"}


def rate(view: Mapping[str, Any]) -> str:
    """'100/1m': a rate as it is configured; from a mapping with the names of channelspec.Rate."""
    period_s = view["period_s"]
    unit_s, unit = next(((each, name) for each, name in _UNITS if period_s % each == 0), (1, "s"))
    return f"{view['starts']}/{period_s / unit_s:g}{unit}"


def _rate_words(view: Mapping[str, Any]) -> str:
    used = view.get("used")
    return f"rate {rate(view)}" + ("" if used is None else f", {used} used")


def rate_used(view: Mapping[str, Any]) -> str:
    """'100 of 100 in this minute, next in 4 s': from a channel's "rate" in the status."""
    period_s, next_s = view["period_s"], view.get("next_in_s")
    window = _PERIODS.get(period_s) or f"these {seconds(period_s)}"
    when = "" if next_s is None else f"{math.ceil(next_s)} s" if next_s < 120 else seconds(next_s)
    following = f", next in {when}" if when else ""
    return f"{view['used']} of {view['starts']} in {window}{following}"


def share(view: Mapping[str, Any]) -> str:
    """'2 to 8', 'min 2 kept free', 'max 8': a database's share as in the status."""
    least, most = view.get("min"), view.get("max")
    kept = (f", {least} kept free" if most else " kept free") if least and view.get("reserve") else ""
    return (f"{least} to {most}" if least and most else f"min {least}" if least else f"max {most}") + kept


def rules_in_words(rules: Mapping[str, Any]) -> list[str]:
    """What is not as by default in `status`, under "rules": a few words each."""
    ageing_s, upgrade_s = rules.get("ageing_s"), rules.get("upgrade_timeout_s")
    words = (
        f"ageing {seconds(ageing_s)}" if ageing_s else "",
        "new databases wait" if rules.get("new_databases") == "hold" else "",
        "neutralised copies are served" if rules.get("serve_neutralized") else "",
        "jobs beyond max_runtime are ended" if rules.get("max_runtime_action") == "terminate" else "",
        f"upgrade_timeout {seconds(upgrade_s)}" if upgrade_s not in (None, UPGRADE_TIMEOUT_S) else "",
    )
    return [word for word in words if word]


def options_in_words(rules: Mapping[str, Any]) -> str:
    """What `channel_options` give to the channels of each database, from `status`, under "rules"; '' if nothing."""
    said = []
    for option in rules.get("channel_options") or ():
        most = [f"max {option['capacity']}"] if option.get("capacity") else []
        said.append(f"{option['name']} {', '.join((*most, *channel_settings(option)))}")
    return "; ".join(said)


def schedule_in_words(schedule: Mapping[str, Any]) -> str:
    """'root.heavy closed until 18:00; then 2026-11-30 08:00 root.heavy closed': from "schedule" in `status`."""
    now = [f"{each['channel']} {each['text']}" for each in schedule.get("limits", ())]
    then = [
        f"{each['at'][:16].replace('T', ' ')} {each['channel']} {each['text']}" for each in schedule.get("next", ())
    ]
    return f"now {', '.join(now) or 'all is open'}; then {', '.join(then) or 'nothing changes'}"


def channel_settings(view: Mapping[str, Any]) -> list[str]:
    """A channel's settings beside its capacity, a few words each, from a mapping with ChannelSpec's names.

    Of a channel of the status also how much of its rate is used.
    """
    throttle_s = view.get("throttle_s")
    reserved = " kept free" if view.get("reserve") else ""
    words = (
        "paused" if view.get("paused") else "",
        f"min {view['minimum']}{reserved}" if view.get("minimum") else "",
        f"weight {view['weight']}" if view.get("weight") else "",
        str(view.get("schedule") or ""),
        "sequential" if view.get("sequential") else "",
        f"throttle {throttle_s:g} s" if throttle_s else "",
        _rate_words(view["rate"]) if view.get("rate") else "",
        f"max_runtime {seconds(view['max_runtime_s'])}" if view.get("max_runtime_s") else "",
        f"subchannels {view['capacity_default']}" if view.get("capacity_default") else "",
        "subchannels sequential" if view.get("sequential_default") else "",
        f"subchannels rate {rate(view['rate_default'])}" if view.get("rate_default") else "",
    )
    return [word for word in words if word]
