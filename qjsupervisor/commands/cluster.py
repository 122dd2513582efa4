"""`cluster`: creates the schema the supervisors of a cluster share, shows its members, and forgets lost ones."""

from __future__ import annotations

from ..broker.coordinator import GRANTS, INIT, READ_ALL, READ_FOR_STATUS, Coordinator, readable
from ..broker.ledger import START, Ledger, LedgerError
from ..broker.view import cluster_view
from ..config.load import Config
from ..errors import ConfigError, DatabaseUnfit
from .output import console, print_json, print_line, table
from .session import dsn_of, session

_EXIT_NO_MEMBER = 1


def init(config: Config, *, only_print: bool) -> int:
    """Create the schema in `cluster_database`, or print its SQL for someone with the privileges. Idempotent.

    Ledgers of an older format are brought up to date.
    """
    if only_print:
        print_line("-- To be run in " + config.cluster_database)
        for line in (INIT + "-- For the role of the supervisors, if it is another one:").splitlines():
            print_line(line)
        for line in GRANTS.format(role="ROLE").splitlines():
            print_line("-- " + line)
        return 0
    with session(config, config.cluster_database, "cluster") as found:
        found.rows(INIT)
        for cluster, document in found.rows(READ_ALL):
            with readable(config.cluster_database, cluster):
                Ledger.from_json(document)
    print_line(f"{config.cluster_database}: the schema qjsupervisor is there")
    return 0


def status(config: Config, *, as_json: bool) -> int:
    """Show members, leases and unclaimed permits; exit status 1 if no member is alive."""
    cluster, where = _named(config), config.cluster_database
    with session(config, where, "cluster") as found:
        if not found.rows("SELECT 1 WHERE to_regclass('qjsupervisor.ledger') IS NOT NULL"):
            raise DatabaseUnfit(where, f"{where}: no schema qjsupervisor: run `qjsupervisor cluster init`")
        row = next(iter(found.rows(READ_FOR_STATUS, {"cluster": cluster})), None)
    document, now_s = row or ({}, 0.0)
    with readable(where, cluster):
        view = cluster_view(Ledger.from_json(document), cluster, now_s)
    if as_json:
        print_json(view)
    else:
        _print(view)
    return 0 if any(member["alive"] for member in view["members"]) else _EXIT_NO_MEMBER


def forget(config: Config, who: str) -> int:
    """Free what is kept for the lost member `who` (host:pid). Raises DatabaseUnfit if that must not be."""
    cluster, where = _named(config), config.cluster_database
    coordinator = Coordinator(dsn_of(config, where, "cluster"), cluster, lambda: None)
    try:
        coordinator.connect()
        freed = coordinator.forget(who)
    except LedgerError as error:
        raise DatabaseUnfit(where, f"cluster {cluster}: {error}") from error
    finally:
        coordinator.close()
    print_line(f"cluster {cluster}: {who} is forgotten; free now: {_counts(freed) or 'nothing'}")
    return 0


def _named(config: Config) -> str:
    """The cluster's name. Raises ConfigError if there is none."""
    if config.cluster is None:
        raise ConfigError("cluster", "cluster is not set: there is no cluster to show")
    return config.cluster


def _print(view: dict[str, object]) -> None:
    members = view["members"]
    assert isinstance(members, list)
    rows = [
        (
            f"{member['host']}:{member['pid']}",
            "ready" if member["alive"] else "unreachable",
            member["databases"],
            _counts(member["leases"]),
            _counts(member["floor"]),
            _counts(member["limbo"]),
            ", ".join(member["waits_in"]),
        )
        for member in members
    ]
    columns = (
        "supervisor",
        "state",
        ">databases",
        "*leases",
        "*floor",
        "*of running jobs, unclaimed",
        "*waits in",
    )
    console().print(table(f"cluster {view['name']}", columns, rows))
    for member in members:
        if member["floor_lacks"]:
            missing = _counts(member["floor_lacks"])
            print_line(f"{member['host']}:{member['pid']}: lacks {missing} of its coordination_floor")
    limbo, differs = view["limbo"], view["differs"]
    assert isinstance(limbo, dict)
    assert isinstance(differs, dict)
    for database, counts in limbo.items():
        print_line(f"{database}: {_counts(counts)} of running jobs wait for its next server")
    for channel, said in differs.items():
        print_line(f"{channel}: the smallest capacity holds: {_counts(said)}")
    if view["barrier_s"]:
        print_line(f"the coordinator was restarted: nothing is leased for {view['barrier_s']} s")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if not name.endswith(START))
