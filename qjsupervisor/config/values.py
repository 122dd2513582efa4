"""Parsers of single configuration values: text in, value out.

Pure. A parser raises ValueError with a one-line message: what is wrong, then what is allowed. It does not know
where the text came from (`sources` adds that) and is never given a password.
"""

from __future__ import annotations

import fnmatch
import os
import re
import socket
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Parser = Callable[[str], T]
#: (glob over database names, number); the first match wins.
Rules = tuple[tuple[str, int], ...]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_DIGITS = re.compile(r"[+-]?[0-9]+")
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?\s*[smhdw]\s*)+|[+-]?[0-9]{1,12}(?:\.[0-9]{1,9})?")
_PART = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")
#: Longest path of a Unix socket (`sun_path` without its final NUL).
_SOCKET_PATH_BYTES = 107


class Secret(str):
    """A password that knows where it was configured, so that an error can say which one is wrong."""

    place: str

    def __new__(cls, text: str, place: str) -> Secret:
        made = super().__new__(cls, text)
        made.place = place
        return made

    def __reduce__(self) -> tuple[object, ...]:
        return Secret, (str(self), self.place)


#: Parser -> metavar in the help.
_CALLED: dict[object, str] = {}


def called(parse: Parser[Any]) -> str:
    """The metavar in the help for a value of this parser: TIME, PATH, HOST:PORT ..."""
    return _CALLED.get(parse, "VALUE")


def _called(parse: Parser[T], name: str) -> Parser[T]:
    _CALLED[parse] = name
    return parse


def unset(text: str | None) -> bool:
    """Whether a text means "not set"; Odoo writes False, others None or an empty string."""
    return text is None or text.strip() in ("", "False", "false", "None")


def shown(text: str, limit: int = 80) -> str:
    """A text for an error line: quoted, control characters escaped, shortened to `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded; lone surrogates from JSON or undecodable arguments cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def integer(text: str) -> int:
    """Parse a decimal integer; unlike `int`, refuses underscores and non-ASCII digits."""
    if _INTEGER.fullmatch(text.strip()):
        return int(text)
    what = "out of range" if _DIGITS.fullmatch(text.strip()) else "not a whole number"
    raise ValueError(f"{shown(text)} is {what}{comment_hint(text)}")


def comment_hint(text: str) -> str:
    """A hint if the value ends in a comment, which Odoo's file format does not support."""
    if not re.search(r"\s[;#]", text):
        return ""
    return " (a comment has to stand on a line of its own, not behind a value)"


def integer_in(low: int, high: int) -> Parser[int]:
    """A parser of integers from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            number = integer(text)
        except ValueError as error:
            raise ValueError(f"{error}; allowed: {low} to {high}") from None
        if not low <= number <= high:
            raise ValueError(f"{number} is out of range; allowed: {low} to {high}")
        return number

    return _called(parse, "N")


def ports(text: str) -> int | str:
    """Parse one port, or several separated by commas, as libpq accepts them for several hosts."""
    numbers = [integer_in(1, 65535)(part) for part in text.split(",")]
    return numbers[0] if len(numbers) == 1 else ",".join(map(str, numbers))


def hint(text: str) -> int | None:
    """Parse an integer of Odoo's that is only used for advice; None if it is not one."""
    return int(text) if _INTEGER.fullmatch(text.strip()) else None


def duration(text: str) -> float:
    """Seconds of a duration, as options and commands take it: "60", "0.5", "90s", "5m", "1h30m", "2d", "1w"."""
    text = text.strip().lower()
    if not _DURATION.fullmatch(text):
        allowed = "allowed: seconds, or with units: 90s, 30m, 1h30m, 2d, 1w"
        raise ValueError(f"{shown(text)} is not a duration; {allowed}{comment_hint(text)}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def duration_in(low_s: float, high_s: float) -> Parser[float]:
    """A parser of durations from `low_s` to `high_s` seconds."""

    def parse(text: str) -> float:
        seconds = duration(text)
        if not low_s <= seconds <= high_s:
            raise ValueError(f"{seconds:.15g} s is out of range; allowed: {low_s:.15g} to {high_s:.15g} seconds")
        return seconds

    return _called(parse, "TIME")


def optional_duration_in(low_s: float, high_s: float) -> Parser[float | None]:
    """As `duration_in`; 0 means no limit (None)."""
    bounded = duration_in(0.0, high_s)

    def parse(text: str) -> float | None:
        seconds = bounded(text)
        if 0 < seconds < low_s:
            allowed = f"0 (no limit), {low_s:.15g} to {high_s:.15g} s"
            raise ValueError(f"{seconds:.15g} s is out of range; allowed: {allowed}")
        return seconds or None

    return _called(parse, "TIME")


def choice(*allowed: str) -> Parser[str]:
    """A parser of one of several words; case does not matter."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in allowed:
            raise ValueError(f"{shown(text)} is unknown; allowed: {', '.join(allowed)}{comment_hint(text)}")
        return word

    return _called(parse, "|".join(allowed))


_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


def yes_or_no(text: str) -> bool:
    """Parse a boolean, in Odoo's spellings too."""
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        allowed = ", ".join(_TRUE + _FALSE)
        raise ValueError(f"{shown(text)} is neither yes nor no; allowed: {allowed}{comment_hint(text)}")
    return word in _TRUE


def plain(text: str) -> str:
    """Parse one line of text: stripped, without control characters (a NUL would end a C string early)."""
    text = text.strip()
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"{shown(text)} holds a control character; allowed: one line of text")
    return text


def no_url(text: str) -> str:
    """As `plain`, but refuses a URL, without quoting it: it may contain a password."""
    if "://" in text:
        raise ValueError("is a URL; allowed: a name or an address, nothing else")
    return plain(text)


def verbatim(text: str) -> str:
    """Return a secret unchanged: no check means no error that could quote it."""
    return text


def user_name(text: str) -> str:
    """Parse a user name for HTTP basic authentication, which allows no colon in it."""
    text = plain(text)
    if ":" in text:
        raise ValueError("holds a colon, which a user name must not; the password has an option of its own")
    return text


def entries(text: str) -> list[str]:
    """Split at commas and line ends, dropping empty parts."""
    return [part for part in (raw.strip() for raw in re.split(r"[,\n]", text)) if part]


def globs(text: str) -> tuple[str, ...]:
    """Parse shell patterns for database names."""
    return tuple(entries(text))


def rules_in(low: int, high: int) -> Parser[Rules]:
    """A parser of `glob:number` entries; a bare number means `*:number`."""

    def parse(text: str) -> Rules:
        rules = []
        for entry in entries(text):
            pattern, colon, number = entry.rpartition(":")
            pattern = pattern.strip() if colon else "*"
            if not pattern:
                raise ValueError(f"entry {shown(entry)} has no pattern; allowed: PATTERN:NUMBER, or NUMBER")
            try:
                rules.append((pattern, integer_in(low, high)(number)))
            except ValueError as error:
                raise ValueError(f"entry {shown(entry)}: {error}") from None
        return tuple(rules)

    return _called(parse, "PATTERN:N,...")


def first_match(rules: tuple[tuple[str, T], ...], database: str) -> T | None:
    """The value of the first rule whose glob matches the database's name, or None."""
    return next((value for glob, value in rules if fnmatch.fnmatchcase(database, glob)), None)


def host(text: str) -> str:
    """Parse a host name or address into its form in a URL (IPv6 in brackets)."""
    bare = text.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    if _is_ipv6(bare):
        return f"[{bare}]"
    if not _HOST_NAME.fullmatch(bare):
        raise ValueError(f"{shown(text)} is not a host; allowed: a host name or an IP address, nothing else")
    return bare


def _is_ipv6(text: str) -> bool:
    number, percent, zone = text.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6, number)
    except (OSError, ValueError):
        return False
    return not percent or _ZONE.fullmatch(zone) is not None


def split_port(text: str) -> tuple[str, int | None]:
    """'host', 'host:8069', '::1' or '[::1]:8069' -> (host as written in a URL, port or None)."""
    text = text.strip()
    name, colon, port = text.rpartition(":")
    if not colon or "/" in text or (":" in name and not name.endswith("]")):
        return host(text), None
    try:
        return host(name), integer_in(1, 65535)(port)
    except ValueError as error:
        raise ValueError(f"{shown(text)}: {error}") from None


def address(text: str) -> tuple[str, int]:
    """Parse 'host:port' to listen on; the host comes without brackets."""
    try:
        name, port = split_port(text)
    except ValueError as error:
        raise ValueError(f"{error}; write HOST:PORT, as in 127.0.0.1:9100") from None
    if port is None:
        raise ValueError(f"{shown(text)} has no port; write HOST:PORT, as in 127.0.0.1:9100")
    return name.strip("[]"), port


def path(text: str) -> str:
    """Parse a path and make it absolute; '~' is the home directory."""
    return os.path.abspath(os.path.expanduser(plain(text)))


def socket_path(text: str) -> str:
    """As `path`, but short enough for a Unix socket."""
    result = path(text)
    if len(os.fsencode(result)) > _SOCKET_PATH_BYTES:
        raise ValueError(f"{shown(result)} is too long for a socket; allowed: {_SOCKET_PATH_BYTES} bytes")
    return result


def certificates(text: str) -> str:
    """As `path`, for a readable file of certificates."""
    import ssl  # not at the top: it takes longer than all else here, and most targets are plain http

    result = path(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(result)
        return result
    except ssl.SSLError:
        raise ValueError(f"{shown(result)} holds no certificate; allowed: a file of certificates (PEM)") from None
    except OSError as error:
        raise ValueError(f"{shown(result)} cannot be read ({error.strerror}); allowed: a readable file") from None


def refuse_relative(text: str) -> None:
    """Raise ValueError for a path that means another place in each directory a command is called in."""
    if not plain(text).startswith(("/", "~")):
        raise ValueError(f"{shown(text)} is relative; allowed: a path that begins with / or ~")


#: Parsers of paths. What is typed as an argument may be relative to the working directory; what is stored may not.
PATHS = (path, socket_path, certificates)

_CALLED.update(
    {
        address: "HOST:PORT",
        certificates: "FILE",
        globs: "PATTERNS",
        no_url: "NAME",
        path: "PATH",
        plain: "NAME",
        socket_path: "PATH",
        user_name: "NAME",
        verbatim: "TEXT",
        yes_or_no: "yes|no",
    }
)
