"""The settings of a porter. The master creates them without importing any database code."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PorterSettings:
    """What all databases of a porter have in common."""

    #: What our sessions are recognised by; see master.session_mark.
    session_mark: int = field(repr=False)
    #: For a whole connection, all addresses together.
    connect_timeout_s: float
    #: The server ends our session when it is silent for so long; None: never.
    leader_timeout_s: float | None = None
    #: A database that dozes for so long falls asleep; None: never.
    sleep_timeout_s: float | None = None
    #: What is connected to for the counters of the databases that sleep.
    maintenance_db: str = "postgres"
