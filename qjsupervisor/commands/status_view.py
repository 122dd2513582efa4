"""Renders `status` as lines: totals, problems, databases (those with problems first), channels, targets.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from rich.text import Text

from ..channelspec import ROOT
from ..master.totals import totals
from ..monitor.health import NAMED, cluster_line, find_problems
from ..states import RESTING, WorkerState
from ..text import channel_settings, options_in_words, rules_in_words, running_of, schedule_in_words, share
from .columns import Column, Row, folded, lines, without_column
from .output import duration

Status = Mapping[str, Any]
View = Mapping[str, Any]

#: Up to this many idle databases or channels are shown individually.
_FEW = 5

#: `--sort` argument, except "problems" and "name" -> key of a database in the status; largest first.
DATABASE_KEYS: Mapping[str, str] = {
    "pending": "pending",
    "running": "running",
    "failed": "failed",
    "oldest": "oldest_pending_s",
    "rate": "per_minute",
    "dispatched": "dispatched",
    "restarts": "restarts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to show, and in which order."""

    #: Shell patterns for databases; (): all.
    patterns: tuple[str, ...] = ()
    only_problems: bool = False
    sort: str = "problems"
    #: List idle ones individually too.
    everything: bool = False


EVERYTHING = Choice(everything=True)


class Shown(NamedTuple):
    """The screen: a fixed head, and a body that can be scrolled."""

    head: list[Text]
    body: list[Text]


class Troubles(NamedTuple):
    """Problems and warnings: those of more than one database, and those of each."""

    problems: list[str]
    warnings: list[str]
    #: Database -> (line, whether it is a problem).
    of: Mapping[str, list[tuple[str, bool]]]
    #: Lines of databases that are reported above, once for all databases that share them.
    told: frozenset[str]
    #: Databases affected by a problem or warning that is not their own.
    concerned: frozenset[str]

    def alone(self) -> Iterator[tuple[str, bool]]:
        """(line with the database's name, whether it is a problem) for what few databases share."""
        for name, reasons in self.of.items():
            yield from ((f"{name}: {text}", is_problem) for text, is_problem in reasons if text not in self.told)


def is_chosen(name: object, patterns: Sequence[str]) -> bool:
    """Whether a database's name matches."""
    return not patterns or any(fnmatchcase(str(name), pattern) for pattern in patterns)


def choose(status: Status, patterns: Sequence[str]) -> Status:
    """The status reduced to the matching databases and their totals."""
    if not patterns:
        return status
    views = [view for view in status.get("databases", ()) if is_chosen(view.get("name"), patterns)]
    return {**status, "databases": views}


def names(status: Status, choice: Choice) -> list[str]:
    """Names of the chosen databases in the chosen order."""
    status = choose(status, choice.patterns)
    found = troubles(status)
    views = sorted(status.get("databases", ()), key=_order(choice.sort, found))
    shown = [str(view.get("name")) for view in views]
    return [name for name in shown if name in found.of] if choice.only_problems else shown


def troubles(status: Status) -> Troubles:
    """Problems and warnings of the status, by what they concern."""
    of: dict[str, list[tuple[str, bool]]] = {}
    shared: tuple[list[str], list[str]] = ([], [])
    told: set[str] = set()
    concerned: set[str] = set()
    for each in find_problems(status):
        if not each.own or len(each.databases) > NAMED:
            shared[each.is_warning].append(each.text)
            told.add(each.own)
        for name in each.databases:
            if each.own:
                of.setdefault(name, []).append((each.own, not each.is_warning))
            else:
                concerned.add(name)
    return Troubles(*shared, of, frozenset(told), frozenset(concerned))


def render(status: Status, choice: Choice = EVERYTHING, width: int = 0) -> Shown:
    """The status in lines of at most this width; 0: unlimited."""
    status = choose(status, choice.patterns)
    found = troubles(status)
    return Shown(
        list(_fold(_head(status, found), width)),
        list(_body(status, choice, found, width)),
    )


def _fold(parts: Iterable[tuple[str, str]], width: int) -> Iterator[Text]:
    for text, style in parts:
        yield from folded(text, width, style)


# -- the head ------------------------------------------------------------------------------------------------------


def headline(status: Status) -> str:
    """Identifies the supervisor: version, process, uptime, mode."""
    up = f"up {duration(status.get('uptime_s'))}"
    where = (f"qjsupervisor {status.get('version')}", f"process {status.get('pid')}", up)
    rules = rules_in_words(status.get("rules") or {})
    return ", ".join((*where, str(status.get("mode")), str(status.get("fairness")), *rules))


def summary(status: Status) -> str:
    """Workload and progress; if only some databases are shown, without the capacity, which is shared by all."""
    sums = totals(status.get("databases", ()))
    everywhere = status.get("totals", {}).get("databases") == sums["databases"]
    root: View = next((view for view in status.get("channels", ()) if everywhere and view.get("name") == ROOT), {})
    of = "" if root.get("capacity") is None else f" of {root['capacity']:,}"
    oldest = f" (oldest due {duration(sums['oldest_pending_s'])})" if sums["oldest_pending_s"] else ""
    running = running_of(root, sums["running"])
    return (
        f"{sums['pending']:,} pending{oldest}, {running:,}{of} running, {sums['failed']:,} failed,"
        f" {sums['per_minute']:,.0f} a minute"
    )


def databases_line(status: Status) -> str:
    """Number of databases by state."""
    sums = totals(status.get("databases", ()))
    states = sorted(sums["states"].items(), key=lambda each: (each[0] != WorkerState.READY.value, -each[1], each[0]))
    many = f"{sums['databases']} database{'' if sums['databases'] == 1 else 's'}"
    return many + (f": {', '.join(f'{count} {state}' for state, count in states)}" if states else "")


def _head(status: Status, found: Troubles) -> Iterator[tuple[str, str]]:
    yield headline(status), "bold"
    troubled = sum(any(is_problem for _, is_problem in each) for each in found.of.values())
    yield databases_line(status) + (f"; {troubled} with problems" if troubled else ""), "bold red" if troubled else ""
    yield summary(status), ""
    if status.get("cluster"):
        yield cluster_line(status["cluster"]), ""
    for line in found.problems:
        yield line, "red"
    for line in found.warnings:
        yield line, "yellow"
    names = {view.get("name") for view in status.get("databases", ())}
    for pause in status.get("pauses", ()):
        if pause.get("database") is None:
            yield f"paused: {_pause(pause)} of all databases{_until(pause)}", "yellow"
        elif pause["database"] not in names and not status.get("databases"):
            yield f"paused: {_pause(pause)} of {pause['database']}{_until(pause)}", "yellow"


def _pause(pause: View) -> str:
    channel = pause.get("channel") or ROOT
    return "everything" if channel == ROOT else f"channel {channel}"


def _until(pause: View) -> str:
    left_s = pause.get("remaining_s")
    until = ", until resumed" if left_s is None else f", for {duration(left_s)} more"
    return until + (f", by {pause['by']}" if pause.get("by") else "")


# -- the body ------------------------------------------------------------------------------------------------------


def _body(status: Status, choice: Choice, found: Troubles, width: int) -> Iterator[Text]:
    parts = (
        _databases(status, choice, found, width),
        *(() if choice.only_problems else (_channels(status, choice, width), _rules(status, width))),
        *(() if choice.only_problems else (_targets(status, width),)),
    )
    for part in parts:
        shown = list(part)
        if shown:
            yield Text("")
            yield from shown


_DATABASE_COLUMNS = (
    Column("state", is_number=False),
    Column("pending"),
    Column("running"),
    Column("failed"),
    Column("oldest"),
    Column("/min"),
    Column("db_capacity", is_number=False, optional=1),
    Column("dispatched", optional=3),
    Column("restarts", optional=2),
    Column("heartbeat", optional=4),
)


#: The column of what db_capacity gives, which few have.
_SHARE = [column.head for column in _DATABASE_COLUMNS].index("db_capacity")


def _databases(status: Status, choice: Choice, found: Troubles, width: int) -> Iterator[Text]:
    views = list(status.get("databases", ()))
    pauses: dict[str, list[View]] = {}
    for pause in status.get("pauses", ()):
        pauses.setdefault(str(pause.get("database")), []).append(pause)
    if choice.only_problems:
        views = [view for view in views if str(view.get("name")) in found.of]
    idle = [view for view in views if _is_idle(view) and str(view.get("name")) not in {*found.of, *pauses}]
    if len(idle) <= _FEW or choice.everything:
        idle = []
    each_alone = choice.everything or choice.patterns
    known = [] if each_alone else [view for view in views if _is_told(view, found) and view.get("name") not in pauses]
    hidden = {id(view) for view in (*idle, *(known if choice.sort == "problems" else ()))}
    shown = sorted((view for view in views if id(view) not in hidden), key=_order(choice.sort, found))
    rows = [_database(view, found, pauses, each_alone=bool(each_alone)) for view in shown]
    columns: Sequence[Column] = _DATABASE_COLUMNS
    if not any(view.get("share") for view in views):
        columns, rows = without_column(_SHARE, columns, rows)
    if rows:
        yield from lines("database", columns, rows, width or _wide(rows))
    if known and choice.sort == "problems":
        many = f"{len(known)} more are" if rows else f"{len(known)} databases are"
        yield from folded(f"{many} affected by the problems above (--all shows them)", width, "dim")
    if idle:
        yield from folded(f"{len(idle)} more ready and idle{_resting(idle)} (--all shows them)", width, "dim")
    if not views and choice.only_problems and not (found.problems or found.warnings):
        yield from folded("no database has a problem", width, "green")


def _resting(views: Sequence[View]) -> str:
    """How many of these have no worker."""
    counts = ((phase, sum(view.get("phase") == phase for view in views)) for phase in RESTING)
    return "".join(f", {count} {phase}" for phase, count in counts if count)


def _order(sort: str, found: Troubles) -> Callable[[View], Any]:
    def worst(view: View) -> tuple[int, str]:
        name = str(view.get("name"))
        of = found.of.get(name, ())
        return 0 if any(is_problem for _, is_problem in of) else 1 if of else 2, name

    if sort == "name":
        return lambda view: str(view.get("name"))
    key = DATABASE_KEYS.get(sort)
    return worst if key is None else lambda view: (-(view.get(key) or 0), str(view.get("name")))


def _is_told(view: View, found: Troubles) -> bool:
    """Whether it is not served for a reason that the head reports for all databases concerned."""
    name, states = str(view.get("name")), (WorkerState.READY.value, WorkerState.STANDBY.value)
    reasons = {text for text, _ in found.of.get(name, ())}
    return view.get("state") not in states and reasons <= found.told and bool(reasons or name in found.concerned)


def _is_idle(view: View) -> bool:
    """Whether nothing runs, waits or failed, and nothing is wrong."""
    if view.get("state") != WorkerState.READY.value or view.get("paused"):
        return False
    return not any(view.get(key) for key in ("pending", "running", "failed", "waiting_dependencies", "per_minute"))


def _database(view: View, found: Troubles, pauses: Mapping[str, Sequence[View]], *, each_alone: bool) -> Row:
    """`each_alone`: repeat the reasons that the head reports for several databases."""
    name = str(view.get("name"))
    reasons = [(text, bad) for text, bad in found.of.get(name, ()) if each_alone or text not in found.told]
    below = [(text, "red" if bad else "yellow") for text, bad in reasons]
    below += [(f"paused: {_pause(pause)}{_until(pause)}", "yellow") for pause in pauses.get(name, ())]
    is_resting = view.get("state") == WorkerState.READY.value and view.get("phase") in RESTING
    cells = (
        str(view.get("phase" if is_resting else "state")),
        *(f"{view.get(key) or 0:,}" for key in ("pending", "running", "failed")),
        duration(view.get("oldest_pending_s") or None),
        f"{view.get('per_minute') or 0:,.0f}",
        share(view["share"]) if view.get("share") else "-",
        *(f"{view.get(key) or 0:,}" for key in ("dispatched", "restarts")),
        duration(view.get("heartbeat_age_s")),
    )
    return Row(name, cells, [(_short(text, view), style) for text, style in below])


def _short(text: str, view: View) -> str:
    """Drop the state, which has its own column, and append its age."""
    age_s = view.get("last_error_age_s")
    own = text.removeprefix(f"{view.get('state')}: ")
    return own + (f" ({duration(age_s)} ago)" if own != text and age_s is not None else "")


_CHANNEL_COLUMNS = (
    Column("running"),
    Column("capacity"),
    Column("pending"),
    Column("failed"),
    Column("settings", is_number=False, optional=1),
)


def _channels(status: Status, choice: Choice, width: int) -> Iterator[Text]:
    views = list(status.get("channels", ()))
    idle = [view for view in views if view.get("name") != ROOT and not any(map(view.get, _BUSY))]
    if len(idle) <= _FEW or choice.everything:
        idle = []
    hidden = {id(view) for view in idle}
    rows = [
        Row(
            str(view.get("name")),
            (
                f"{view.get('running') or 0:,}",
                "no limit" if view.get("capacity") is None else f"{view['capacity']:,}",
                f"{view.get('pending') or 0:,}",
                f"{view.get('failed') or 0:,}",
                ", ".join((*(("stopped",) if view.get("stopped") else ()), *channel_settings(view))),
            ),
        )
        for view in views
        if id(view) not in hidden
    ]
    if rows:
        yield from lines("channel", _CHANNEL_COLUMNS, rows, width or _wide(rows))
    if idle:
        yield from folded(f"{len(idle)} more channels in which nothing runs, waits or failed", width, "dim")


def _rules(status: Status, width: int) -> Iterator[Text]:
    """The schedule, and what channels of each database are given."""
    schedule, options = status.get("schedule") or {}, options_in_words(status.get("rules") or {})
    if options:
        yield from folded(f"channels of each database: {options}", width)
    if schedule:
        yield from folded(f"schedule ({schedule.get('timezone')}): {schedule_in_words(schedule)}", width)


_BUSY = ("running", "pending", "failed", "paused", "stopped")
_TARGET_COLUMNS = (Column("state", is_number=False), Column("failures"), Column("probed again in", optional=1))


def _targets(status: Status, width: int) -> Iterator[Text]:
    views = status.get("targets") or [status.get("target") or {}]
    rows = [
        Row(
            str(view["url"]),
            (str(view.get("state")), str(view.get("failures") or 0), duration(view.get("retry_in_s"))),
        )
        for view in views
        if view.get("url")
    ]
    if rows:
        yield from lines("target", _TARGET_COLUMNS, rows, width or _wide(rows))


def _wide(rows: Sequence[Row]) -> int:
    """The width at which every row fits on one line, as for a pipe."""
    return max(len(row.name) * 2 + sum(len(cell) + 20 for cell in row.cells) for row in rows) + 10_000
