"""Runs one task in each of many databases in parallel; a failure affects only its own database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..config.load import Config
from ..errors import DatabaseError, DatabaseGone
from ..scout.scout import list_databases

T = TypeVar("T")

_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The outcome for one database: a result or an error."""

    database: str
    result: T | None
    error: DatabaseError | None


def in_all(config: Config, work: Callable[[str], T], names: Sequence[str] | None = None) -> Iterator[Done[T]]:
    """Run `work` in all databases a supervisor would scan, or in `names`; yields outcomes in order of names.

    Databases without queue_job are skipped unless named. Raises DatabaseError if databases cannot be listed.
    """
    wanted = sorted(list_databases(config)) if names is None else names
    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        for done in pool.map(lambda name: _done(name, work), wanted):
            if names is not None or not isinstance(done.error, DatabaseGone):
                yield done
    finally:
        pool.shutdown(cancel_futures=True)


def _done(name: str, work: Callable[[str], T]) -> Done[T]:
    try:
        return Done(name, work(name), None)
    except DatabaseError as error:
        return Done(name, None, error)
