"""Finds an option's text: command line, environment or Odoo's file. Does not interpret it.

Order of precedence: command line, environment, [qjsupervisor] and [queue_job], [options]. For keys of [options]
Odoo 19 prefers its environment to the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigError
from ..text import nearest
from . import environment
from .environment import Version
from .odoo_file import OdooFile
from .options import ODOO, ODOO_OPTIONS, OPTIONS, OWN, QUEUE_JOB, QUEUE_JOB_OPTIONS, Option
from .settings import Origin
from .values import PATHS, refuse_relative, shown, unset

T = TypeVar("T")

_PREFIX = "QJSUPERVISOR_"
#: Prefixes of variables that were probably meant for us or for queue_job.
_NEAR_PREFIXES = ("QJ", "ODOO_Q", "ODOO_JOB", "ODOO_CHANNEL", "QUEUE_JOB")
#: Options whose text may be or contain a secret.
_SECRET = ("password", "targets", "db_name")


class SourcedText(NamedTuple):
    """An option's text and the place it was found."""

    text: str
    place: str
    #: Taken from the fallback key in [options].
    borrowed: bool = False


class Sources(NamedTuple):
    """All places where an option can be set. `environ` excludes Kubernetes' service variables."""

    argv: Mapping[str, str]
    environ: Mapping[str, str]
    file: OdooFile
    odoo: Version

    def get(self, option: Option[T]) -> T:
        """The option's value from the place with the highest precedence."""
        found = self.find(option)
        if found is None:
            return option.default
        try:
            if option.parse in PATHS and found.place != option.flag:
                refuse_relative(found.text)
            return option.parse(found.text)
        except ValueError as error:
            raise ConfigError(option.name, f"{found.place}: {error}") from None

    def find(self, option: Option[Any]) -> SourcedText | None:
        """The option's text from the place with the highest precedence, or None if it is not set."""
        if option.section == OWN and not unset(text := self.argv.get(option.name)):
            return SourcedText(text or "", str(option.flag))
        if option.variable and not unset(text := self.environ.get(option.variable)):
            return SourcedText(text or "", f"environment variable {option.variable}")
        keys = [(option.section, option.name), *((ODOO, key) for key in option.fallbacks)]
        for section, key in keys:
            borrowed = key != option.name
            variable = environment.odoo_variable(key) if section == ODOO and self.odoo.reads_environment else None
            if variable is not None and (text := self.environ.get(variable)) is not None:
                # An empty variable takes precedence too: it means "not set".
                return None if unset(text) else SourcedText(text, f"environment variable {variable}", borrowed)
            if (text := self.file.get(section, key)) is not None:
                return SourcedText(text, f"{self.file.path}: [{section}] {key}", borrowed)
        return None

    def origins(self) -> Iterator[Origin]:
        """For every option: where it was found, and its text unless that may be secret."""
        for option in (*ODOO_OPTIONS, *QUEUE_JOB_OPTIONS, *OPTIONS):
            found = self.find(option)
            if found is not None:
                secret = any(word in option.name for word in _SECRET)
                yield Origin(option.section, option.name, found.place, None if secret else found.text)
            else:
                yield Origin(option.section, option.name, self._default_place(option), None)

    def _default_place(self, option: Option[Any]) -> str:
        variables = map(environment.libpq_variable, (option.name, *option.fallbacks))
        taken = next((name for name in variables if name and self.environ.get(name)), None)
        return f"environment variable {taken}, by libpq" if taken and not self.odoo.reads_environment else "default"

    # -- mistakes ------------------------------------------------------------------------------------------------

    def refuse_unknown(self) -> None:
        """Refuse unknown options meant for us, which would otherwise go unnoticed. Raises ConfigError."""
        names = [option.name for option in OPTIONS]
        for name in self.argv:
            if name not in ("config", *names):
                raise ConfigError(name, f"--{name.replace('_', '-')}: no such option{_instead(name, names)}")
        for key in self.file.keys(OWN):
            if key not in names:
                raise ConfigError(key, f"{self.file.path}: [{OWN}] {shown(key)}: {_unknown_key(key, names)}")
        for name in self.environ:
            key = name.removeprefix(_PREFIX)
            if key == name or key in map(str.upper, names):
                continue
            instead = _instead(key.lower(), names, lambda known: _PREFIX + known.upper())
            raise ConfigError(name, f"environment variable {shown(name)}: no such option{instead}")

    def near_misses(self) -> Iterator[str]:
        """Warnings about unknown keys of queue_job and about misspelt sections and variables."""
        known = [option.name for option in QUEUE_JOB_OPTIONS]
        for key in self.file.keys(QUEUE_JOB):
            if key not in known:
                near = nearest(key, known, cutoff=0.7)
                hint = f"; did you mean {near}?" if near else ""
                yield f"{self.file.path}: [{QUEUE_JOB}] {shown(key)} is not known here and has no effect{hint}"
        for section in self.file.sections:
            near = nearest(section.lower(), (OWN, QUEUE_JOB), cutoff=0.75)
            if near and section != near:
                yield f"{self.file.path}: section [{section}] is not read; did you mean [{near}]?"
        variables = [str(option.variable) for option in (*OPTIONS, *QUEUE_JOB_OPTIONS)]
        for name, near_name in environment.nearly(self.environ, variables, prefixes=_NEAR_PREFIXES):
            yield f"environment variable {shown(name)} is not read; did you mean {near_name}?"


def _unknown_key(key: str, names: list[str]) -> str:
    if any(key == option.name for option in QUEUE_JOB_OPTIONS):
        return f"belongs to section [{QUEUE_JOB}]"
    return f"no such option{_instead(key, names)}"


def _instead(name: str, names: list[str], written: Callable[[str], str] = str) -> str:
    """A hint: the name that was probably meant, or all allowed names."""
    near = nearest(name, names, cutoff=0.7)
    if near:
        return f"; did you mean {written(near)}?"
    return f"; allowed: {', '.join(map(written, names))}"
