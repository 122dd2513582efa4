"""What a fault is: it strikes, and returns how it is undone and after how many seconds, if that is needed.

One that cannot be done at the moment (there is no PostgreSQL, say) raises one of CANNOT.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import psutil
import psycopg2

from qjsupervisor.testing.processes import DemoError

from .world import Heal, World


class CannotError(Exception):
    """There is nothing to strike."""


#: Of a busy machine, too: something that was waited for (AssertionError) did not happen in time.
CANNOT = (
    CannotError,
    psycopg2.Error,
    psutil.Error,
    OSError,
    DemoError,
    subprocess.TimeoutExpired,
    AssertionError,
)
Fault = Callable[[World], "tuple[float, Heal] | None"]
