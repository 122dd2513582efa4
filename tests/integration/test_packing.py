"""Code that workers run, on few pages: in a process of its own, as how it lies depends on what ran there before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_PROGRAM = """
import json
from qjsupervisor.config.load import load
from qjsupervisor.master import memory, packing
from qjsupervisor.worker import warmup

config = load({}, {"ODOO_RC": "/dev/null"})

def code_pages():
    with packing.recorded() as codes:
        warmup.play(config, starts=1, jobs=3)
    return len(codes), len({number // 4096 for number in codes})

before = code_pages()
functions = packing.all_functions()
memory.fill_gaps()
with packing.recorded() as codes:
    warmup.play(config, starts=1, jobs=3)
packing.pack(codes, functions)
del codes
print(json.dumps([before, code_pages()]))
"""


def test_code_that_workers_run_lies_together() -> None:
    """Functions run, and the pages on which their code begins, before and after."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
    (before, scattered), (after, together) = json.loads(done.stdout)
    assert after == pytest.approx(before, rel=0.1)
    assert together <= scattered * 0.55
