"""Random channel trees, and what happens at random to one database's jobs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from qjsupervisor.channelspec import ROOT, ChannelSpec, parent_name

from .channel_driver import Driver
from .channel_model import HOLDS, SECOND, Row

CHANNELS = ("a", "a.b", "a.b.c", "d", "d.e", "f")
#: As jobs name them: short and complete, NULL and empty, unknown at several depths.
JOB_CHANNELS: tuple[str | None, ...] = (
    *(None, "", "root", "a", "root.a", "a.b", "root.a.b", "a.b.c", "d", "d.e", "root.d.e", "f"),
    *("a.x", "a.x.y", "a.b.z", "d.q", "d.e.w", "z", "root.z.z", "f.g", "f.g.h"),
)


def random_specs(rng: random.Random) -> list[ChannelSpec]:
    """A tree: the root, and some of CHANNELS, parents first; no defaults for unknown channels in a third of them."""
    if rng.random() < 0.33:
        return [replace(spec, sequential_default=False, capacity_default=None) for spec in _any(rng)]
    return _any(rng)


def _any(rng: random.Random) -> list[ChannelSpec]:
    specs = [random_spec(rng, ROOT)]
    names = {ROOT}
    for name in CHANNELS:
        full = f"{ROOT}.{name}"
        if parent_name(full) in names and rng.random() < 0.75:
            names.add(full)
            specs.append(random_spec(rng, full))
    return specs


def random_spec(rng: random.Random, name: str) -> ChannelSpec:
    sequential = rng.random() < (0.1 if name == ROOT else 0.3)
    sequential_default = rng.random() < 0.15
    return ChannelSpec(
        name=name,
        capacity=1 if sequential else rng.choice([None, 1, 2, 3, 5]),
        sequential=sequential,
        throttle_s=rng.choice([0, 0, 0, 0, 1, 3]),
        paused=rng.random() < 0.05,
        capacity_default=1 if sequential_default else rng.choice([None, None, 1, 2]),
        sequential_default=sequential_default,
    )


def random_row(rng: random.Random, job_id: int, now_us: int, state: str = "pending") -> Row:
    eta = now_us + rng.randint(-2, 8) * SECOND if rng.random() < 0.4 else None
    return Row(job_id, rng.choice(JOB_CHANNELS), state, rng.randint(0, 2), rng.randint(0, 3), eta)


STATES = ("pending", "enqueued", "started", "done", "failed", "failed", "cancelled", "wait_dependencies", "pending")


def step(driver: Driver, action: str, rng: random.Random, heard: str) -> None:
    """One thing happens."""
    ACTIONS[action][0](driver, rng, heard)
    if len(driver.world.rows) > 40:
        for job_id in list(driver.world.rows)[:20]:
            driver.delete(job_id, "now")


def _new(driver: Driver, rng: random.Random, heard: str) -> None:
    job_id = max(driver.world.rows, default=0) + rng.randint(1, 3)
    driver.change(random_row(rng, job_id, driver.world.now_us), heard)


def _alter(driver: Driver, rng: random.Random, heard: str) -> None:
    if driver.world.rows:
        row = rng.choice(list(driver.world.rows.values()))
        unserved = random_row(rng, row.job_id, driver.world.now_us, row.state)
        driver.change(replace(unserved, created_us=row.created_us), heard)


def _touch(driver: Driver, rng: random.Random, _heard: str) -> None:
    if driver.world.rows:
        driver.hear(rng.choice(list(driver.world.rows)))


def _transit(driver: Driver, rng: random.Random, heard: str) -> None:
    if driver.world.rows:
        row = rng.choice(list(driver.world.rows.values()))
        driver.change(replace(row, state=rng.choice(STATES)), heard)


def _finish(driver: Driver, rng: random.Random, heard: str) -> None:
    holding = driver.world.of(*HOLDS)
    if holding:
        row = rng.choice(holding)
        driver.change(replace(row, state=rng.choice(["done", "done", "done", "failed"])), heard)


def _delete(driver: Driver, rng: random.Random, heard: str) -> None:
    if driver.world.rows:
        driver.delete(rng.choice(list(driver.world.rows)), heard)


def _pass_time(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.world.now_us += rng.choice([1, SECOND // 2, SECOND, 2 * SECOND, 5 * SECOND])


def _hear(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.hear_late(rng.randint(1, 5))


def _begin(driver: Driver, rng: random.Random, _heard: str) -> None:
    if driver.reading is False:
        unread = [node.name for node in driver.tree.unread()]
        driver.begin(None if driver.tree.partial or not unread or rng.random() < 0.4 else unread)


def _start(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.start(rng.randint(1, 4))


def _take(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.exchange(rng.randint(0, 3))
    driver.check_published()


def _pause(driver: Driver, rng: random.Random, _heard: str) -> None:
    names = [name for name in (ROOT, "root.a", "root.a.b", "root.a.x", "root.z", "root.d") if rng.random() < 0.15]
    driver.claim()
    driver.pause(names)


def _defer(driver: Driver, rng: random.Random, _heard: str) -> None:
    if driver.world.deferred and rng.random() < 0.5:
        driver.release(rng.choice(sorted(driver.world.deferred)))
    elif pending := [r for r in driver.world.of("pending") if r.job_id not in driver.tree.taken]:
        driver.set_aside(rng.choice(pending).job_id)


def _succeed(driver: Driver, rng: random.Random, _heard: str) -> None:
    held = sorted(driver.tree.holding() & {row.job_id for row in driver.world.of(*HOLDS)})
    if held:
        driver.hand_over(rng.choice(held))


def _look(driver: Driver, _rng: random.Random, _heard: str) -> None:
    driver.look()


def _end(driver: Driver, _rng: random.Random, _heard: str) -> None:
    driver.end()


def _abandon(driver: Driver, _rng: random.Random, _heard: str) -> None:
    driver.abandon()


def _claim(driver: Driver, _rng: random.Random, _heard: str) -> None:
    driver.claim()


def _rebuild(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.claim()
    driver.rebuild(with_head=rng.random() < 0.7)


def _settle(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.start_settled(rng.randint(1, 6))


Action = Callable[[Driver, random.Random, str], None]
#: What may happen, and how often.
ACTIONS: Mapping[str, tuple[Action, float]] = {
    "new": (_new, 10),
    "alter": (_alter, 3),
    "touch": (_touch, 2),
    "transit": (_transit, 4),
    "finish": (_finish, 5),
    "delete": (_delete, 1),
    "time": (_pass_time, 3),
    "hear": (_hear, 3),
    "begin": (_begin, 3),
    "look": (_look, 3),
    "end": (_end, 3),
    "abandon": (_abandon, 0.3),
    "start": (_start, 4),
    "take": (_take, 1),
    "claim": (_claim, 2),
    "pause": (_pause, 0.7),
    "rebuild": (_rebuild, 0.6),
    "deferred": (_defer, 0.7),
    "succeed": (_succeed, 3),
    "settle": (_settle, 3),
}


def random_driver(rng: random.Random) -> Driver:
    """A tree that has read its empty database."""
    driver = Driver(random_specs(rng), keep_limits=rng.random() < 0.5, window=rng.choice([1, 3, 3, 8, 1000]))
    driver.read_everything()
    return driver


def random_history(seed: int, steps: int) -> Driver:
    """Drive one random tree through a random history. Raises AssertionError."""
    rng = random.Random(seed)
    driver = random_driver(rng)
    weights = [weight for _action, weight in ACTIONS.values()]
    for _ in range(steps):
        heard = rng.choices(["now", "late", "never"], [8, 3, 0.2])[0]
        step(driver, rng.choices(list(ACTIONS), weights)[0], rng, heard)
    driver.start_settled(3)
    return driver
