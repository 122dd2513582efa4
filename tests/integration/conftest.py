"""Fixtures of these tests, by where they are made."""

from __future__ import annotations

from .asking import loops  # noqa: F401
from .checking import check, fake_odoo  # noqa: F401
from .commands import run, two  # noqa: F401
from .holders import fork, sign, table  # noqa: F401
from .monitored import monitor  # noqa: F401
from .served import make_rig, rig  # noqa: F401
