"""Prepares the master's memory before the first fork, so that workers share as much of it as possible.

A page is shared until somebody writes to it. With hundreds of workers this is worth some care: what each would do for
the first time is done once here (worker/warmup.py), the garbage collector is kept away from existing objects, and gaps
in the heap are filled. A worker's new objects then lie together instead of in gaps of otherwise shared pages. This
saves about 0.5 MiB per worker at the cost of a megabyte here (measured with Python 3.11).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterable
from types import FunctionType

from ..config.settings import Config
from ..worker.warmup import play, warm_up
from .packing import pack, recorded

_PAGE = 4096
#: Largest block of Python's own allocator, in steps of 16 bytes; larger ones come from malloc.
_SMALL = 512
#: Smaller blocks cannot be filled, because the integers that hold their addresses take up such blocks themselves.
_SMALLEST = 48
_BYTES_OVERHEAD = b"".__sizeof__()
#: Block sizes that libraries allocate; larger blocks have their own pages anyway.
_LARGE = (4096, 3072, 2048, 1536, *range(1024, 31, -16))
#: Most blocks of one size.
_MOST = 20_000

#: The blocks that fill the gaps, kept as long as the master lives.
filling: list[object] = []


def make_ready(config: Config, functions: Iterable[FunctionType]) -> None:
    """Call once, after all imports and before the first worker is forked; takes some thirty milliseconds.

    `functions`: packing.all_functions before the first fork.
    """
    _pack_code(config, functions)
    gc.freeze()  # otherwise the first collection in a worker would write to every page
    # The attribute cache refers to each name, so a worker would write to names it never uses.
    sys._clear_type_cache()  # noqa: SLF001  (a function of the interpreter with no other name)
    warm_up(config)
    gc.collect()
    fill_gaps()
    gc.freeze()
    gc.enable()


def _pack_code(config: Config, functions: Iterable[FunctionType]) -> None:
    with recorded() as codes:
        play(config, starts=1, jobs=3)
    fill_gaps()
    pack(codes, functions)


def fill_gaps() -> None:
    """Allocate until each size has a whole free page ahead, so that later allocations do not use gaps."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    _fill(lambda size: int(malloc(size - 8)), _LARGE)  # with malloc's own word
    _fill(_allocate_small, range(_SMALL, _SMALLEST - 1, -16))


def _allocate_small(size: int) -> int:
    block = bytes(size - _BYTES_OVERHEAD)
    filling.append(block)
    return id(block)


def _fill(allocate: Callable[[int], int], sizes: Iterable[int]) -> None:
    for size in sizes:
        last = run = 0
        for _ in range(_MOST):
            address = allocate(size)
            run = run + size if 0 < address - last <= size + 32 else 0
            last = address
            if run >= _PAGE:
                break
