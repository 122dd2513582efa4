"""The settings of a porter. The master creates them without importing any database code."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The digest of failed jobs where there are none; see postgres.rest.
NONE_FAILED = "0/0"


@dataclass(frozen=True, kw_only=True)
class PorterSettings:
    """Settings common to all databases of a porter."""

    #: Identifies our own sessions; see master.session_mark.
    session_mark: int = field(repr=False)
    #: Time limit for connecting, over all addresses.
    connect_timeout_s: float
    #: The server ends our session after this much silence; None: never.
    leader_timeout_s: float | None = None
    #: A database falls asleep after dozing this long; None: never.
    sleep_timeout_s: float | None = None
    #: Database to connect to for reading counters.
    maintenance_db: str = "postgres"
