"""Moves the code that every worker runs to as few memory pages as possible.

Each call writes to the called code object: its reference count and the interpreter's specialisations. Modules scatter
code between constants, names and code that workers never run, so a few hundred functions lie on as many pages, and a
worker that calls them gets a private copy of each page. Copying the code objects one after the other avoids this.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any


@contextmanager
def recorded() -> Iterator[dict[int, CodeType]]:
    """Record the code that this thread runs, by its id, in the order of the first calls."""
    codes: dict[int, CodeType] = {}

    def note(frame: FrameType, event: str, _arg: Any) -> None:
        if event == "call":
            codes[id(frame.f_code)] = frame.f_code

    former = sys.getprofile()
    sys.setprofile(note)
    try:
        yield codes
    finally:
        sys.setprofile(former)


def all_functions() -> list[FunctionType]:
    """Every function there is.

    To look for them touches every object. After a fork that copies every page, so it is done before.
    """
    return [found for found in gc.get_objects() if type(found) is FunctionType]


def pack(codes: Mapping[int, CodeType], among: Iterable[FunctionType]) -> None:
    """Make the functions with this code use copies of it, allocated in the order of the mapping."""
    functions: dict[int, list[FunctionType]] = {number: [] for number in codes}
    for function in among:
        if id(function.__code__) in functions:
            functions[id(function.__code__)].append(function)
    for number, code in codes.items():
        if functions[number]:
            copy = code.replace()
            for function in functions[number]:
                function.__code__ = copy
