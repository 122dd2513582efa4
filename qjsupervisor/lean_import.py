"""Imports a library without what it imports for uses that are not ours."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


@contextmanager
def lean_import(*, hidden: Collection[str] = (), late: Collection[str] = ()) -> Iterator[None]:
    """In its body, modules in `hidden` are not found, and those in `late` are loaded when something in them is used.

    Modules that are imported already stay as they are.
    """
    finder = _Finder(hidden, late)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    def __init__(self, hidden: Collection[str], late: Collection[str]) -> None:
        self._hidden = hidden
        self._late = late

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._hidden:
            raise ModuleNotFoundError(f"{name} is not needed here", name=name)
        if name not in self._late:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
