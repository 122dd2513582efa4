"""OCA's own channel manager, from the package index, without Odoo.

No line of it is in this repository: the wheel is fetched once into a cache folder and its module of channels is loaded
with stand-ins for the two modules that it imports from.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qjsupervisor.channelspec import ROOT, ChannelSpec

PACKAGE = "odoo-addon-queue-job"
VERSION = "19.0.2.4.0.1"
_CHANNELS = "odoo/addons/queue_job/jobrunner/channels.py"
_STATES = ("cancelled", "done", "enqueued", "failed", "pending", "started", "wait_dependencies")


def cache_folder() -> Path:
    """Where the wheel is kept: $QJS_TEST_CACHE, or a folder of the user's among the temporary files."""
    folder = os.environ.get("QJS_TEST_CACHE") or f"{tempfile.gettempdir()}/qjsupervisor-tests-{os.getuid()}"
    path = Path(folder)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def fetch_wheel() -> Path:
    """OCA's wheel, from the package index if it is not there yet."""
    cache = cache_folder()
    pattern = f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"
    if not list(cache.glob(pattern)):
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True, stdin=subprocess.DEVNULL)
            for wheel in Path(folder).glob("*.whl"):
                wheel.rename(cache / wheel.name)
    return next(cache.glob(pattern))


def load_channels() -> types.ModuleType:
    """OCA's module `channels`."""
    name = "qjs_tests_oca.jobrunner.channels"
    if name in sys.modules:
        return sys.modules[name]
    with zipfile.ZipFile(fetch_wheel()) as wheel:
        source = wheel.read(_CHANNELS).decode()
    _stand_in("qjs_tests_oca", __path__=[])
    _stand_in("qjs_tests_oca.exception", ChannelNotFound=type("ChannelNotFound", (Exception,), {}))
    _stand_in("qjs_tests_oca.job", **{state.upper(): state for state in _STATES})
    _stand_in("qjs_tests_oca.jobrunner", __path__=[])
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(source, f"{PACKAGE}-{VERSION}/{_CHANNELS}", "exec"), module.__dict__)
    return module


def _stand_in(name: str, **attributes: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


class Oca:
    """A channel manager with one database. Times in seconds.

    With `takes_back`, what OCA has handed on to a parent's queue and what did not start is put back into its own
    channel after each look. That is the only thing in which OCA's decisions and ours differ on purpose: OCA gives a job
    the place in its own channel as soon as it could have it, and may find later that there is a better one for it; we
    decide at the moment of the start.
    """

    DATABASE = "db"

    def __init__(self, specs: Iterable[ChannelSpec] = (), *, takes_back: bool = False) -> None:
        self.manager = load_channels().ChannelManager()
        self._takes_back = takes_back
        #: How often something was taken back.
        self.taken_back = 0
        for spec in specs:
            self._configure(spec)

    def _configure(self, spec: ChannelSpec) -> None:
        config = {
            "name": spec.name,
            "capacity": spec.capacity,
            "sequential": spec.sequential,
            "throttle": spec.throttle_s,
            "paused": spec.paused,
        }
        self.manager.get_channel_from_config(config)

    def configure(self, channels: str) -> None:
        """Set up channels, as the channel string says; others stay as they are."""
        self.manager.simple_configure(channels)

    def wakes_at(self) -> float | None:
        """When to look again; None: not before something happens."""
        return self.manager.get_wakeup_time() or None

    def notify(
        self, job_id: int, channel: str | None, priority: int, created: int, eta: int | None, state: str
    ) -> None:
        """The row of a job is so now."""
        self.manager.notify(self.DATABASE, channel, job_id, job_id, created, priority, eta, state)

    def remove(self, job_id: int) -> None:
        """The row of a job is gone."""
        self.manager.remove_job(job_id)

    def decide(self, now: int) -> list[int]:
        """The jobs to run, in order."""
        channels = list(self._channels(self.manager.get_channel_by_name(ROOT)))
        pauses = [channel._pause_until for channel in channels]
        started = list(self.manager.get_jobs_to_run(now))
        if self._takes_back:
            self._take_back(started)
            through = {id(above) for job in started for above in self._path(job.channel)}
            for channel, pause in zip(channels, pauses, strict=True):
                if id(channel) not in through:
                    channel._pause_until = pause
        return [job.uuid for job in started]

    def _take_back(self, started: Sequence[Any]) -> None:
        running = self.manager.get_channel_by_name(ROOT)._running
        for job in list(self.manager._jobs_by_uuid.values()):
            handed_on = job in job.channel._running and job not in running
            if handed_on:
                self.taken_back += 1
                job.channel.set_pending(job)

    def _channels(self, channel: Any) -> Iterator[Any]:
        yield channel
        for child in channel.children.values():
            yield from self._channels(child)

    def _path(self, channel: Any) -> Iterator[Any]:
        while channel:
            yield channel
            channel = channel.parent
