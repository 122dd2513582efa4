"""Jobs that can never be asked for, as no request could name them; whoever made them is told, in the log, once."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ..job import Job
from ..postgres.queries import MAX_UUID_BYTES

#: Jobs whose refusal is remembered.
MAX_REFUSED = 10_000


def is_sendable(uuid: str) -> bool:
    """Whether a request can name a job of this uuid."""
    return 0 < _size(uuid) <= MAX_UUID_BYTES


def _size(uuid: str) -> int:
    return len(uuid.encode("utf-8", "surrogateescape"))


def refusal(uuid: str) -> str | None:
    """Why no request can name a job of this uuid; None: one can."""
    return None if is_sendable(uuid) else f"its uuid has {_size(uuid)} bytes, not 1 to {MAX_UUID_BYTES}"


class Refusals:
    """The jobs that were refused."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._refused: set[int] = set()

    def concern(self, job: Job) -> bool:
        """Whether a job can never be asked for."""
        why = refusal(job.uuid)
        if why is None:
            return False
        if job.id not in self._refused and len(self._refused) < MAX_REFUSED:
            self._refused.add(job.id)
            self._log.warning("job_refused", job_uuid=job.uuid[:64], job_id=job.id, reason=why)
        return True
