"""`check`: whether this supervisor can join its cluster, and how the others are configured."""

from __future__ import annotations

from collections.abc import Iterator

from ..broker.coordinator import GRANTS, PRIVILEGES, READ_FOR_STATUS, USABLE, readable
from ..broker.ledger import START, Ledger
from ..config.settings import Config
from ..errors import DatabaseError
from .findings import Finding, note, problem, warning
from .job_rows import fetch
from .session import session

_INIT = "run `qjsupervisor cluster init` (--print: the SQL, for somebody who may)"


def check_cluster(config: Config) -> Iterator[Finding]:
    """Findings about the coordinator; none without a cluster."""
    if config.cluster is None:
        return
    where = f"cluster {config.cluster}, database {config.cluster_database}"
    try:
        with session(config, config.cluster_database, "check") as connection:
            (usable,) = fetch(connection, USABLE)
            is_writable, has_schema, may_use = usable
            if not is_writable:
                yield problem(f"{where}: the server is read-only: nothing starts; use the primary")
            if not has_schema:
                yield problem(f"{where}: no schema qjsupervisor: {_INIT}")
                return
            if not may_use:
                yield problem(f"{where}: {_missing('USAGE on the schema')}")
                return
            (lacks,) = fetch(connection, PRIVILEGES)
            if lacks[0] is None:
                yield problem(f"{where}: no table qjsupervisor.ledger: {_INIT}")
                return
            if lacks[0]:
                yield problem(f"{where}: {_missing(lacks[0] + ' on qjsupervisor.ledger')}")
                return
            row = next(iter(fetch(connection, READ_FOR_STATUS, {"cluster": config.cluster})), None)
            with readable(config.cluster_database, config.cluster):
                ledger = Ledger.from_json(row[0]) if row else Ledger()
    except DatabaseError as error:
        yield problem(f"cluster {config.cluster}: {error}")
        return
    yield from about_members(config, ledger, where)


def about_members(config: Config, ledger: Ledger, where: str) -> Iterator[Finding]:
    """Settings in which living members differ, and whether there is room for the floors."""
    alive = [member for member in ledger.members.values() if member.valid]
    yield note(f"{where}: {len(alive)} supervisors share its capacity now")
    own = {spec.name: spec.capacity for spec in config.channels if spec.capacity is not None}
    for channel, capacity in own.items():
        said = {f"{m.host}:{m.pid}": m.capacity[channel] for m in alive if channel in m.capacity}
        other = {who: n for who, n in said.items() if n != capacity}
        if other and not channel.endswith(START):
            told = ", ".join(f"{who} has {n}" for who, n in sorted(other.items()))
            yield warning(f"{where}: channel {channel} has {capacity} here, {told}: the smallest holds")
    for channel, floor in config.coordination_floor.items():
        others = sum(member.floor.get(channel, 0) for member in ledger.members.values())
        if floor + others > own.get(channel, 0):
            yield warning(
                f"{where}: coordination_floor of {channel} is {floor} here, supervisors have {others} of"
                f" {own.get(channel)} now: there may be no room for it"
            )


def _missing(what: str) -> str:
    grants = " ".join(line for line in GRANTS.format(role="ROLE").splitlines())
    return f"the role lacks {what}: {grants}"
