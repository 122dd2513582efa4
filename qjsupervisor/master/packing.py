"""Puts the code that every worker runs on as few pages as possible.

Each call writes to the code that is called: a reference count, and what the interpreter learns of it. Modules leave
their code between constants, names, and code that workers never run, so that a few hundred functions lie on as many
pages, and a worker that calls them has a copy of each page. Here they are copied one after the other.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
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


def pack(codes: Mapping[int, CodeType]) -> None:
    """Have the functions with this code run copies of it, which lie in the order of the mapping."""
    functions: dict[int, list[FunctionType]] = {number: [] for number in codes}
    for found in gc.get_objects():
        if type(found) is FunctionType and id(found.__code__) in functions:
            functions[id(found.__code__)].append(found)
    for number, code in codes.items():
        if functions[number]:
            copy = code.replace()
            for function in functions[number]:
                function.__code__ = copy
