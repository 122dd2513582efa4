"""Finds and reads Odoo's configuration file.

Reads it as Odoo does: no interpolation ('%' is an ordinary character), no comments after values, case-insensitive
keys, values over several indented lines. Does not interpret values. No error quotes a line of the file, because
it may contain a password.
"""

from __future__ import annotations

import configparser
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigError
from .environment import Version
from .values import shown, unset

#: Far more than any configuration needs; a larger file is something else and would take long to parse.
_MAX_BYTES = 1_048_576
#: Variables that name the file, in order of precedence; the second is an old name that Odoo reads up to 18.
_OLD_VARIABLE = "OPENERP_SERVER"
_VARIABLES = ("ODOO_RC", _OLD_VARIABLE)
#: Where Odoo looks if no file is named; the first that exists is used.
DEFAULT_PLACES = ("~/.odoorc", "~/.openerp_serverrc", "/etc/odoo/odoo.conf")


@dataclass(frozen=True, slots=True)
class OdooFile:
    """The sections of one file; `path` is None if there is no file."""

    path: str | None = None
    #: May contain passwords.
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    #: Keys of [DEFAULT], which apply to every section but belong to none.
    inherited: frozenset[str] = frozenset()

    def get(self, section: str, key: str) -> str | None:
        """The text of a key, or None if it is missing or unset."""
        text = self.sections.get(section, {}).get(key)
        return None if unset(text) else text

    def keys(self, section: str) -> tuple[str, ...]:
        """A section's own keys in file order, including those without a value."""
        return tuple(key for key in self.sections.get(section, {}) if key not in self.inherited)


def find(named: str | None, environ: Mapping[str, str], version: Version) -> tuple[str, str] | None:
    """The file's path and what named it, or None if there is no file, which is not an error.

    `named`: the path given on the command line. Whether a named file exists is only checked when it is read.
    `version`: Odoo's version as far as it is known without the file.
    """
    if named:
        return os.path.abspath(os.path.expanduser(named)), "--config"
    for variable in _VARIABLES:
        if variable == _OLD_VARIABLE and version.reads_environment:
            continue
        if environ.get(variable):
            return os.path.abspath(os.path.expanduser(environ[variable])), f"${variable}"
    home = environ.get("HOME") or _home()
    for place in DEFAULT_PLACES:
        path = place.replace("~", home, 1) if place.startswith("~") else place
        if os.path.exists(path):
            return path, "the default place"
    return None


def read(named: str | None, environ: Mapping[str, str], version: Version) -> OdooFile:
    """Find and read the file; `version` as in find(). Raises ConfigError."""
    found = find(named, environ, version)
    if found is None:
        return OdooFile()
    path, named_by = found
    parser = _parse(_text(path, named_by), path)
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    return OdooFile(path, sections, frozenset(parser.defaults()))


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container's user without a passwd entry
        return "/"


def _text(path: str, named_by: str) -> str:
    try:
        # O_NONBLOCK: opening a FIFO without a writer would block.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not (stat.S_ISREG(status.st_mode) or os.path.samestat(status, os.stat(os.devnull))):
                raise ConfigError("config", f"{shown(path, 300)}, from {named_by}, is not a regular file")
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            "config",
            f"{shown(path, 300)}, from {named_by}, cannot be read: {error.strerror or error}; "
            "name a readable Odoo configuration file with --config or $ODOO_RC",
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError("config", f"{shown(path, 300)}, from {named_by}, is larger than {_MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # Not "from error", which contains the whole file.
        raise ConfigError("config", f"{shown(path, 300)}: line {line} is not UTF-8; save the file as UTF-8") from None


def _parse(text: str, path: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text, source=path)
    except configparser.Error as error:
        raise ConfigError("config", f"{shown(path, 300)}: {_explained(error)}") from None
    return parser


def _explained(error: configparser.Error) -> str:
    """A one-line explanation that, unlike configparser's own messages, does not quote the file."""
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} stands there twice; keep one"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: section [{error.section}] stands there twice; join them"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} stands before any section; begin the file with [options]"
    if isinstance(error, configparser.ParsingError):
        lines = ", ".join(str(lineno) for lineno, _ in error.errors)
        return f"line {lines}: neither a [section], a 'key = value' nor a comment"
    return f"{type(error).__name__}; write sections of 'key = value' lines"
