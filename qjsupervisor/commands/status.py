"""`status`: shows the running supervisor's status as text, as JSON, or continuously."""

from __future__ import annotations

import sys

from ..config.load import Config
from ..master.totals import totals
from ..text import printable
from . import client
from .output import console, print_json, print_line
from .status_view import Choice, is_chosen, names, render

_EXIT_NOT_FOUND = 1


def run(config: Config, choice: Choice, *, as_json: bool = False, only_names: bool = False, watch: bool = False) -> int:
    """Print the status; with `watch`, until Ctrl-C. Exit status 1 if a pattern matches no database."""
    if watch:
        from . import watch as watching

        return watching.run(config, choice)
    status = client.status(config)
    known = [view.get("name") for view in status.get("databases", ())]
    unmatched = [each for each in choice.patterns if not any(is_chosen(name, (each,)) for name in known)]
    if as_json:
        wanted = set(names(status, choice))
        views = [view for view in status.get("databases", ()) if view.get("name") in wanted]
        print_json({**status, "databases": views, "totals": totals(views)})
    elif only_names:
        for name in names(status, choice):
            print_line(name)
    elif len(unmatched) < len(choice.patterns) or not unmatched:
        screen = console()
        width = screen.width if sys.stdout.isatty() else 0
        for line in (*(shown := render(status, choice, width)).head, *shown.body):
            screen.print(line, soft_wrap=True)
    for pattern in unmatched:
        sys.stderr.write(f"no database matches {printable(pattern)!r}; there are {len(known)}\n")
    return _EXIT_NOT_FOUND if unmatched else 0
