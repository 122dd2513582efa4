"""`status --watch`: refreshes the status every second; a scrollable screen on a terminal, else plain lines.

It survives a restart of the supervisor, and says if the supervisor is gone. q or Ctrl-C ends it.
"""

from __future__ import annotations

import codecs
import os
import selectors
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..config.load import Config
from . import client
from .output import console, print_line
from .status_view import Choice, Shown, choose, databases_line, render, summary, troubles

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

INTERVAL_S = 1.0
#: Lines scrolled by the mouse wheel or an arrow key.
_KEYS: Mapping[str, str] = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up",
    "\x1b[B": "down", "\x1bOB": "down", "j": "down", "\r": "down",
    "\x1b[5~": "page up", "b": "page up",
    "\x1b[6~": "page down", " ": "page down",
    "\x1b[H": "top", "\x1bOH": "top", "\x1b[1~": "top", "g": "top",
    "\x1b[F": "bottom", "\x1bOF": "bottom", "\x1b[4~": "bottom", "G": "bottom",
    "q": "quit", "\x03": "quit",
}  # fmt: skip


def run(config: Config, choice: Choice) -> int:
    """Watch until told to end. Raises Unavailable if no supervisor answers at first."""
    status = client.status(config)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", ""):
        _Screen(console(), lambda: client.status(config), choice).run(status)
    else:
        _print_lines(config, choice, status)
    return 0


# -- without a terminal --------------------------------------------------------------------------------------------


def _print_lines(config: Config, choice: Choice, status: Mapping[str, Any]) -> None:
    """Print a line of totals every second, and one for each problem that appears or disappears."""
    news = News(choice.patterns)
    while True:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        for line in news.of(status):
            print_line(f"{now} {line}")
        sys.stdout.flush()
        time.sleep(INTERVAL_S)
        try:
            status = client.status(config)
        except client.Unavailable as error:
            status = {"unavailable": str(error)}


class News:
    """The lines to print for each status in a sequence."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._known: set[str] = set()

    def of(self, status: Mapping[str, Any]) -> Iterator[str]:
        """The lines; a problem is reported when it appears and when it is over."""
        if "unavailable" in status:
            yield str(status["unavailable"])
            return
        status = choose(status, self._patterns)
        found = troubles(status)
        now = {*found.problems, *(line for line, is_problem in found.alone() if is_problem)}
        yield f"{databases_line(status)}; {summary(status)}"
        yield from (f"problem: {line}" for line in sorted(now - self._known))
        yield from (f"over: {line}" for line in sorted(self._known - now))
        self._known = now


# -- on a terminal -------------------------------------------------------------------------------------------------


class _Screen:
    """The alternate screen: a fixed head, a window on the body, and the keys in the last line."""

    def __init__(self, screen: Console, ask: Callable[[], Mapping[str, Any]], choice: Choice) -> None:
        self._screen = screen
        self._ask = ask
        self._choice = choice
        self._top = 0
        self._status: Mapping[str, Any] = {}
        self._error = ""
        self._keys = Keys()

    def run(self, status: Mapping[str, Any]) -> None:
        """Show the screen until a key ends it."""
        self._status = status
        with _keyboard() as keyboard, selectors.DefaultSelector() as selector, self._screen.screen():
            if keyboard is not None:
                selector.register(keyboard, selectors.EVENT_READ)
            next_s = time.monotonic() + INTERVAL_S
            while True:
                self._draw()
                ready = selector.select(max(0.0, next_s - time.monotonic()))
                if ready and keyboard is not None:
                    typed = os.read(keyboard, 1024)
                    if not typed:  # the terminal hung up
                        selector.unregister(keyboard)
                    if any(self._obey(key) for key in self._keys.of(typed)):
                        return
                if time.monotonic() >= next_s:
                    self._refresh()
                    next_s = time.monotonic() + INTERVAL_S

    def _refresh(self) -> None:
        try:
            self._status, self._error = self._ask(), ""
        except client.Unavailable as error:
            self._error = str(error)

    def _obey(self, key: str) -> bool:
        """Act on a key; True to end."""
        page = max(1, shutil.get_terminal_size().lines - 6)
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "top": -(10**9), "bottom": 10**9}
        self._top = max(0, self._top + steps.get(key, 0))
        return key == "quit"

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        shown = render(self._status, self._choice, width)
        if self._error:
            shown = Shown([*_red(f"{self._error}; this is how it was last", width), *shown.head], shown.body)
        lines, self._top = window(shown, self._top, width, height)
        with self._screen.capture() as captured:
            for number, line in enumerate(lines):
                self._screen.print(line, end="" if number == len(lines) - 1 else "\n", soft_wrap=True)
        # Line by line, to avoid flicker. Each line is erased first: erasing after a full line would eat its last cell.
        text = captured.get().replace("\n", "\n\x1b[2K")
        self._screen.file.write(f"\x1b[H\x1b[2K{text}\x1b[J")
        self._screen.file.flush()


def window(shown: Shown, top: int, width: int, height: int) -> tuple[list[Text], int]:
    """The lines that fit a screen, and their offset in the body; the last line says what is not shown."""
    from rich.text import Text

    height = max(2, height)
    head = shown.head[: max(1, (height - 1) // 2)]
    room = height - 1 - len(head)
    body = [*shown.head[len(head) :], *shown.body]
    top = max(0, min(top, len(body) - room))
    part = body[top : top + room]
    more = f"{top + 1}-{top + len(part)} of {len(body)} lines, arrows and PgUp/PgDn scroll, "
    foot = Text(f"{more if len(body) > room else ''}q ends", style="reverse")
    foot.truncate(width)
    return [*head, *part, *[Text("")] * (room - len(part)), foot], top


def _red(line: str, width: int) -> Iterator[Text]:
    from .columns import folded

    return folded(line, width, "bold red")


class Keys:
    """Decodes typed bytes into keys; an escape sequence may arrive in parts."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def of(self, typed: bytes) -> Iterator[str]:
        """The actions of the keys typed; unknown keys are ignored."""
        text = self._rest + self._decoder.decode(typed)
        self._rest = ""
        while text:
            found = next((keys for keys in _KEYS if text.startswith(keys)), None)
            if found is None and len(text) < 4 and any(keys.startswith(text) for keys in _KEYS):
                self._rest = text
                return
            if found is not None:
                yield _KEYS[found]
            text = text[len(found or " ") :]


@contextmanager
def _keyboard() -> Iterator[int | None]:
    """Standard input in character mode without echo; None if it is not a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    former = termios.tcgetattr(keyboard)
    # After Ctrl-Z and `fg` the terminal has the shell's settings again.
    handler = signal.signal(signal.SIGCONT, lambda _signum, _frame: tty.setcbreak(keyboard))
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        signal.signal(signal.SIGCONT, handler)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, former)
