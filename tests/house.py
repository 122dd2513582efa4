"""The figures of the package's structure: measured from its source and from a worker that runs jobs in memory.

`python -m tests.house` prints them and fails where one is beyond its limit; a unit test does the same.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from qjsupervisor.config.load import load
from qjsupervisor.worker import warmup

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "qjsupervisor"
_SERVING = "worker/serving.py"
_WARMUP = "worker/warmup.py"
#: What the warm-up calls as a worker's loop does; the rest of what it calls directly is no part of a job's life.
_BEGINNINGS = (_SERVING, "postgres/notifications.py")
#: Functions that compute when their object wants to be called next.
_DEADLINE = re.compile(
    r"(^|_)(deadline|due|wakes?|wakes_at|look_again|retry|release_times?|next_(start|step|wake|look|turn))_(s|us|ns)$"
)
#: Functions named like that which compute no moment to wake at; each with what it tells.
NOT_DEADLINES: dict[str, str] = {
    "job.py due_us": "since when a job may run, as its row says",
    "backlog/backlog.py oldest_due_us": "since when the oldest job waits, for the status",
    "odoo/dispatcher.py _answer_due_s": "how long an answer may take; it is set as a timer",
}
#: Annotations of containers whose key is a job: by id, by uuid, its record or its open request.
_KEYED_BY_JOB = re.compile(
    r"^(dict\[(int|str|JobRecord)\b.*|dict\[State, dict\[JobRecord.*|(set|deque)\[(int|str|JobRecord|OpenRequest)\])$"
)
#: Whose objects know jobs in a worker.
_KNOW_JOBS = ("worker", "odoo", "postgres", "backlog")
#: Attributes of that shape in these folders that are keyed by something else; each with what it is keyed by.
NOT_JOBS: dict[str, str] = {
    "backlog/names.py nodes": "channel",
    "backlog/names.py names": "channel as rows name it",
    "backlog/names.py _configured": "channel",
    "backlog/names.py _limits": "channel",
    "backlog/names.py _branches": "shared channel's index",
    "backlog/line.py _dirty": "shared channel's index",
    "backlog/line.py _heads": "shared channel's index",
    "backlog/tree.py held": "shared channel's index",
    "backlog/tree.py failed": "shared channel's index",
    "backlog/tree.py changed": "shared channel's index",
    "backlog/line.py new_heads": "shared channel's index",
    "worker/module_gate.py _told": "module",
    "worker/orders.py pauses": "channel",
    "worker/orders.py limits": "channel",
    "worker/past_starts.py _params": "parameter of a statement",
    "worker/reporting.py _unsent": "subject of a message",
    "worker/reporting.py _written": "word of the table",
    "worker/reporting.py _channels": "channel",
    "worker/stops.py _uuids": "channel",
    "postgres/leadership.py _former": "server process",
    "postgres/database.py modules": "module",
    "postgres/session.py reached": "option of a connection",
}


#: Modules with logic that have no test of their name, each with the tests that cover it.
TESTED_ELSEWHERE: dict[str, str] = {
    "demo/run.py": "tests/acceptance/test_demo.py",
    "postgres/queries.py": "tests/integration/test_database.py",
    "worker/parts.py": "tests/unit/test_worker.py",
    # The stand-in Odoo is one program behind one port, and its parts are tested through that.
    "testing/odoo.py": "tests/integration/test_stand_in.py",
    "testing/odoo_http.py": "tests/integration/test_stand_in.py",
    "testing/odoo_jobs.py": "tests/integration/test_stand_in.py",
    "testing/odoo_sessions.py": "tests/integration/test_stand_in.py",
    "testing/odoo_stats.py": "tests/integration/test_stand_in.py",
    # So is the throw-away PostgreSQL: what these start and end are its processes.
    "testing/caretaker.py": "tests/integration/test_testing_postgres.py",
    "testing/launch.py": "tests/integration/test_testing_postgres.py",
}
_TESTS = re.compile(r"\bdef test_|\.TestCase\b")
#: Files of tests that set a private attribute of something that is not under test there.
NOT_TESTED_THERE: dict[str, str] = {
    "tests/oca.py": "OCA's channel manager, whose clock it replaces",
    "tests/stress/storm.py": "takes a part of the table away, to show that the stress test needs it",
}
#: What a module of data, protocols and constants has none of in its functions.
_LOGIC = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.With, ast.BoolOp, ast.Compare, ast.comprehension)


_STAND_INS: dict[type, str] = {
    warmup.FakeDatabase: "postgres/database.py",
    warmup.FakeDispatcher: "odoo/dispatcher.py",
}


class Figure(NamedTuple):
    """One figure and its limit."""

    what: str
    value: float
    limit: float
    #: What was counted, for whoever has to bring it down.
    details: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.value <= self.limit


def sources(folder: Path = PACKAGE) -> Iterator[tuple[str, ast.Module]]:
    """Path relative to the package, and the parsed module."""
    for file in sorted(folder.rglob("*.py")):
        yield str(file.relative_to(PACKAGE)), ast.parse(file.read_text(encoding="utf-8"))


def floors() -> list[str]:
    """The rows of the import contract."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["importlinter:contract:layers"]["layers"].split("\n")[1:]


def modules_beside_the_folders() -> list[str]:
    return [file.stem for file in PACKAGE.glob("*.py") if file.stem != "__init__"]


def packages_with_content() -> list[str]:
    return [str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("__init__.py") if file.read_text().strip()]


def classes_of_one_name() -> list[str]:
    """Classes that have the name of another one, private ones too; a folder does not tell two readers apart."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path}:{node.lineno}")
    return [f"{name}: {', '.join(found)}" for name, found in places.items() if len(found) > 1]


def deadline_functions() -> list[str]:
    """But for the stubs of protocols, whose functions are counted where they are."""
    return [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and _DEADLINE.search(node.name)
        and f"{path} {node.name}" not in NOT_DEADLINES
        and ast.unparse(node.body[-1]) != "..."
    ]


def containers_keyed_by_job() -> list[str]:
    """Attributes of the worker's objects, as they are annotated."""
    return [
        f"{path}:{node.lineno} {ast.unparse(node.target)}: {annotation}"
        for folder in _KNOW_JOBS
        for path, tree in sources(PACKAGE / folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target).startswith("self.")
        and _KEYED_BY_JOB.match(annotation := ast.unparse(node.annotation))
        and f"{path} {ast.unparse(node.target).removeprefix('self.')}" not in NOT_JOBS
    ]


def has_logic(tree: ast.Module) -> bool:
    """Whether a function of it decides or repeats anything."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return any(isinstance(node, _LOGIC) for function in functions for node in ast.walk(function))


def tests_of(path: str, stems: Counter[str]) -> list[Path]:
    """The files that may test a module: test_MODULE where no other module has its name, test_FOLDER_MODULE anyway."""
    module = Path(path)
    names = [f"test_{module.parent.name}_{module.stem}.py"]
    if stems[module.stem] == 1 or module.parent == Path():
        names.append(f"test_{module.stem}.py")
    return [ROOT / "tests" / kind / name for kind in ("unit", "integration") for name in names]


def modules_without_tests() -> list[str]:
    """Modules with logic for which there is no file of tests of their name, nor one in TESTED_ELSEWHERE."""
    modules = dict(sources())
    stems = Counter(Path(path).stem for path in modules)
    found = []
    for path, tree in modules.items():
        files = tests_of(path, stems)
        if path in TESTED_ELSEWHERE:
            files.append(ROOT / TESTED_ELSEWHERE[path])
        if has_logic(tree) and not any(file.exists() and _TESTS.search(file.read_text()) for file in files):
            found.append(path)
    return found


def private_attributes_set_in_tests() -> list[str]:
    """Where a test sets a private attribute of another object, or of a module."""
    found = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        path = str(file.relative_to(ROOT))
        if path not in NOT_TESTED_THERE:
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            found += [f"{path} {ast.unparse(node)[:80]}" for node in nodes if _sets_private(node)]
    return found


def _sets_private(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        names = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
        return ast.unparse(node.func).endswith("setattr") and any(_is_private(name) for name in names)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    owned = (each for each in targets if isinstance(each, ast.Attribute) and _is_private(each.attr))
    return any(ast.unparse(each.value) not in ("self", "cls") for each in owned)


def _is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def module_of(frame: FrameType | None) -> str:
    """The module that a frame runs in, relative to the package; '' outside of it, and for the warm-up itself.

    The warm-up's stand-ins are counted as what they stand in for, and so is what they call.
    """
    file = "" if frame is None else frame.f_code.co_filename
    if frame is None or not file.startswith(str(PACKAGE)):
        return ""
    module = file[len(str(PACKAGE)) + 1 :]
    return _STAND_INS.get(type(frame.f_locals.get("self")), "") if module == _WARMUP else module


def calls(jobs: int) -> tuple[Counter[str], int]:
    """Calls by module while a worker runs so many jobs, and how often `serving` was entered from elsewhere.

    Counted are calls of worker/, and those that it makes of other folders: what is behind them (a lock, a bitmap, a
    window of sorted keys, a request's bytes) knows no job of this worker.
    """
    counted: Counter[str] = Counter()
    entered = 0
    #: What the warm-up itself called that is no part of a job's life, until it returns.
    beside: FrameType | None = None

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal entered, beside
        if beside is not None:
            beside = None if event == "return" and frame is beside else beside
        elif event == "call" and (module := module_of(frame)):
            caller = module_of(frame.f_back)
            if not caller and module not in _BEGINNINGS:
                beside = frame
                return
            counted[module] += module.startswith("worker/") or caller.startswith("worker/")
            entered += module == _SERVING and caller != _SERVING

    config = load({}, {"ODOO_QUEUE_JOB_CHANNELS": "root:4,root.sub:2", "ODOO_RC": "/dev/null"})
    kept, warmup.JOBS = warmup.JOBS, jobs
    sys.setprofile(count)
    try:
        warmup.run_jobs(config)
    finally:
        sys.setprofile(None)
        warmup.JOBS = kept
    return counted, entered


def life_of_a_job() -> tuple[list[str], float]:
    """The modules that a job's life enters, from its notification to its end, and how often it enters `serving`."""
    (few, few_entered), (many, many_entered) = calls(10), calls(110)
    modules = sorted(module for module in many if many[module] - few[module] >= 50)
    return modules, (many_entered - few_entered) / 100


def figures() -> list[Figure]:
    beside, full, rows, doubles = modules_beside_the_folders(), packages_with_content(), floors(), classes_of_one_name()
    deadlines, containers = deadline_functions(), containers_keyed_by_job()
    modules, entered = life_of_a_job()
    untested, private = modules_without_tests(), private_attributes_set_in_tests()
    return [
        Figure("modules beside the folders", len(beside), 20, tuple(beside)),
        Figure("__init__.py files with content", len(full), 0, tuple(full)),
        Figure("floors of the import contract", len(rows), 14, tuple(rows)),
        Figure("classes of one name", len(doubles), 0, tuple(doubles)),
        Figure("functions that compute a next deadline", len(deadlines), 5, tuple(deadlines)),
        Figure("containers keyed by job in a worker", len(containers), 8, tuple(containers)),
        Figure("modules that a job's life enters", len(modules), 15, tuple(modules)),
        Figure("entries into worker/serving.py in a job's life", entered, 4),
        Figure("modules with logic without tests of their name", len(untested), 0, tuple(untested)),
        Figure("private attributes that tests set", len(private), 0, tuple(private)),
        Figure("modules whose tests have another name", len(TESTED_ELSEWHERE), 10, tuple(TESTED_ELSEWHERE)),
    ]


def main() -> int:
    beyond = 0
    for figure in figures():
        beyond += not figure.holds
        print(f"{'ok  ' if figure.holds else 'over'} {figure.value:5g} of {figure.limit:3g}  {figure.what}")
        if not figure.holds or "-v" in sys.argv:
            print(*(f"                     {detail}" for detail in figure.details), sep="\n")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
