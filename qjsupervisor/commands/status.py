"""`status`: what the running supervisor says of itself, for people, as JSON, again and again, or as a plugin's line."""

from __future__ import annotations

import sys

from ..config.load import Config
from ..master.totals import totals
from . import client
from .output import console, print_json, print_line
from .status_view import Choice, choose, is_chosen, render

_EXIT_NOT_FOUND = 1


def run(config: Config, choice: Choice, *, as_json: bool = False, watch: bool = False, check: bool = False) -> int:
    """Print the status; with `watch`, until Ctrl-C. Exit status 1 if no database matches, see probe for `check`."""
    if check:
        from . import probe

        return probe.run(config, choice.patterns)
    if watch:
        from . import watch as watching

        return watching.run(config, choice)
    status = client.status(config)
    names = [view.get("name") for view in status.get("databases", ())]
    unmatched = [each for each in choice.patterns if not any(is_chosen(name, (each,)) for name in names)]
    if as_json:
        chosen = choose(status, choice.patterns)
        print_json({**chosen, "totals": totals(chosen.get("databases", ()))})
    elif len(unmatched) < len(choice.patterns) or not unmatched:
        screen = console()
        width = screen.width if sys.stdout.isatty() else 0
        for line in (*(shown := render(status, choice, width)).head, *shown.body):
            screen.print(line, soft_wrap=True)
    for pattern in unmatched:
        print_line(f"no database matches {pattern!r}; there are {len(names)}") if not as_json else None
    return _EXIT_NOT_FOUND if unmatched else 0
