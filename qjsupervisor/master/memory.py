"""What workers share of the master's memory, made ready before the first fork.

A page is shared until somebody writes to it. Hundreds of workers make this worth some care: what each of them would
do for the first time is done once here (worker/warmup.py), the garbage collector leaves everything alone, and the gaps
of the heap are filled. A worker's own objects then lie together, and not one by one in gaps of pages that are shared
otherwise: a worker has about 0.5 MiB less of its own, for a megabyte here (measured with Python 3.11).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterable

from ..config.settings import Config
from ..worker.warmup import play, warm_up
from .packing import pack, recorded

_PAGE = 4096
#: Of Python's own allocator for small objects, in steps of 16 bytes; larger ones are malloc's.
_SMALL = 512
#: Smaller ones cannot be told to lie together: the numbers that are their addresses lie between them.
_SMALLEST = 48
_BYTES_OVERHEAD = b"".__sizeof__()
#: Sizes of what libraries allocate; larger blocks have pages of their own anyway.
_LARGE = (4096, 3072, 2048, 1536, *range(1024, 31, -16))
#: Blocks of one size, at most.
_MOST = 20_000

#: What fills the gaps; it stays for as long as the master lives.
filling: list[object] = []


def make_ready(config: Config) -> None:
    """Once, after everything was imported and before the first worker is forked; takes some fifty milliseconds."""
    _pack_code(config)
    gc.freeze()  # or the first collection in a worker would write into every page
    # The cache of attributes holds a reference to each name: a worker would write to names that it never uses.
    sys._clear_type_cache()  # noqa: SLF001  (a function of the interpreter with no other name)
    warm_up(config)
    gc.collect()
    fill_gaps()
    gc.freeze()
    gc.enable()


def _pack_code(config: Config) -> None:
    with recorded() as codes:
        play(config, starts=1, jobs=3)
    fill_gaps()
    pack(codes)


def fill_gaps() -> None:
    """Allocate until a whole page on end is free for each size: what comes next does not go into gaps."""
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
