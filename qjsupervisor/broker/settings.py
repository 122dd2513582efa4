"""The settings of a broker. The master creates them without importing any database code."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BrokerSettings:
    """One supervisor's place in a cluster."""

    cluster: str
    #: Identifies the supervisor for as long as it runs; a broker that replaces another is the same member.
    member: str
    master_pid: int
    #: Interval of heartbeats while nothing happens; less than the master's patience.
    heartbeat_s: float
    #: Permits by channel that are never lent, and used while the coordinator is away.
    floor: tuple[tuple[str, int], ...]
    #: Pairs of keyword arguments for `psycopg2.connect`; may hold a password.
    dsn: tuple[tuple[str, str | int], ...] = field(repr=False)
