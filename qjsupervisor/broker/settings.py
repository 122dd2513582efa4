"""What a broker is started with; the master makes it, and imports no database for it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BrokerSettings:
    """One supervisor's place in a cluster."""

    cluster: str
    #: The supervisor, as long as it runs: a broker that comes after another is the same member.
    member: str
    master_pid: int
    #: Pairs of keyword arguments for `psycopg2.connect`; may hold a password.
    dsn: tuple[tuple[str, str | int], ...] = field(repr=False)
