"""The broker: the only process of a supervisor that talks to the cluster's coordinator.

It reports what this supervisor needs and holds, and writes into the shared table how much of each channel may be used,
and until when (table/leases.py). member.py decides what to report; ledger.py decides what follows from it.

If the broker dies, hangs or cannot reach the coordinator, nothing starts after the end of the lease, by the workers'
own clock; running jobs continue. The next broker registers with what the table says.
"""

from __future__ import annotations

import math
import os
import selectors
import time
from typing import Any

from .. import logs
from ..backoff import Backoff
from ..config.settings import APPLICATION_NAME
from ..control import Pipe
from ..errors import DatabaseError, DatabaseUnavailable
from ..loop import Loop
from ..states import EXIT_STOPPED
from ..table.leases import LeaseFacts, LeaseTable
from ..table.semaphore import SemaphoreTable
from .coordinator import Coordinator
from .ledger import START, Answer
from .member import Member, Plan, usable
from .rules import LEASE_S
from .settings import BrokerSettings
from .view import cluster_view

#: Our lease ends this much earlier than the coordinator's, because clocks may run at different rates.
MARGIN_S = 1.0
RENEW_S = 4.0
#: Interval of exchanges while somebody waits for a permit: shares change over time, and a notification may be lost.
CONTENDED_S = 1.0
#: Interval of checks of the table while we wait for a permit that others hold.
_PAUSE_S = 0.05
#: Minimum interval of reports to the master.
_REPORT_S = 0.5


def run_broker(settings: BrokerSettings, table: SemaphoreTable, pipe: Pipe) -> int:
    """Run until told to stop or the master is gone; returns the exit code. Runs in the child, after the fork."""
    return Broker(settings, LeaseTable(table), pipe).run()


class Broker:
    """One supervisor's broker."""

    def __init__(
        self, settings: BrokerSettings, table: LeaseTable, pipe: Pipe, coordinator: Coordinator | None = None
    ) -> None:
        self._settings = settings
        self._table = table
        self._pipe = pipe
        self._member = Member(settings.member, os.uname().nodename, settings.master_pid, dict(settings.floor))
        dsn = {**dict(settings.dsn), "application_name": f"{APPLICATION_NAME} broker"}
        self._coordinator = coordinator or Coordinator(dsn, settings.cluster, self._beat)
        self._loop = Loop()
        self._backoff = Backoff(first_s=0.2, limit_s=3.0)
        self._session = 0
        self._due_s = 0.0
        #: The coordinator's descriptor while it is registered in the loop.
        self._watched_fd = -1
        self._stopping = False
        self._gone = False
        #: When to check the table after a change by a worker. A notification of another member is acted on at once.
        self._look_s = 0.0
        self._looked_s = 0.0
        self._notified = False
        self._renewed_s = -RENEW_S
        self._report_s = 0.0
        self._reported: dict[str, Any] = {}
        self._shown = ""
        self._differs: dict[str, Any] = {}
        self._log = logs.get_logger(cluster=settings.cluster)

    def run(self) -> int:
        """Run the loop; returns the exit code."""
        self._loop.register(self._pipe, selectors.EVENT_READ, lambda _now_s: self._hear_master())
        self._loop.register(self._table.wakeup, selectors.EVENT_READ, lambda _now_s: self._hear_table())
        while not self._gone:
            self._beat()
            now_s = time.monotonic()
            if self._stopping and self._leave():
                break
            if now_s >= min(self._due_s, self._look_s) or self._notified:
                self.step(now_s)
            self._report(time.monotonic())
            wait_s = min(self._due_s, self._look_s) - time.monotonic()
            self._loop.turn(0.0 if self._notified else max(0.0, min(self._settings.heartbeat_s, wait_s)))
        self.close()
        return EXIT_STOPPED

    def close(self) -> None:
        """Close the session and the loop."""
        self._coordinator.close()
        self._loop.close()

    def _beat(self) -> None:
        self._table.heartbeat(time.monotonic_ns())

    # -- what comes ----------------------------------------------------------------------------------------------

    def _hear_master(self) -> None:
        try:
            orders = self._pipe.receive_all()
        except EOFError:
            self._gone = True  # the workers exit too, in their own time; what they hold stays leased until it expires
            return
        self._stopping = self._stopping or any(order.get("do") == "stop" for order in orders)

    def _hear_table(self) -> None:
        self._table.drain_wakeup()
        waits = self._member.is_hungry and not self._member.targets
        self._look_s = self._looked_s + (_PAUSE_S if waits else 0.0)

    def _hear_coordinator(self) -> None:
        try:
            self._notified |= self._coordinator.connected and self._coordinator.heard(self._member.name)
        except DatabaseError as error:
            self._lose(error)

    # -- statements ----------------------------------------------------------------------------------------------

    def step(self, now_s: float) -> None:
        """Exchange with the coordinator if there is anything to say. Does not raise if it is unavailable."""
        notified, self._notified = self._notified, False
        self._look_s, self._looked_s = math.inf, now_s
        try:
            if not self._member.registered:
                if now_s < self._due_s:
                    return
                self._register()
            self._talk(notified=notified)
        except DatabaseError as error:
            self._lose(error)

    def _register(self) -> None:
        if not self._coordinator.connected:
            self._coordinator.connect()
            self._watched_fd = self._coordinator.fileno()
            if self._watched_fd < 0:
                raise DatabaseUnavailable(self._settings.cluster, "the coordinator ended the session at once")
            self._loop.register(self._watched_fd, selectors.EVENT_READ, lambda _now_s: self._hear_coordinator())
        self._session = self._table.next_session()
        with self._table.locked() as table:
            facts = table.read()
            said = self._member.register(facts, self._session)
        sent_s = time.monotonic()
        answer = self._coordinator.execute(said)
        self._member.take_in(said, answer)
        if not answer.ok:
            raise DatabaseUnavailable(self._settings.cluster, "the coordinator knows a newer session of ours")
        with self._table.locked() as table:
            facts = table.read()
            for each in facts.slots:
                table.put_settled(each.slot, 0)
            self._put_starts(table, facts, answer)
            rights = {c.name: answer.got.get(c.name, 0) for c in facts.channels.values()}
            tokens = {c.name: bool(answer.got.get(c.name + START)) for c in facts.channels.values() if c.throttle_s}
            may = {
                c.name: usable(c, rights[c.name], tokens.get(c.name, False), answer.targets, self._member.blocked)
                for c in facts.channels.values()
            }
            table.put_floors({c: min(answer.floor.get(c, 0), n) for c, n in rights.items()})
            table.put_rights({c: n for c, n in rights.items() if facts.channels[c].capacity is not None}, tokens, may)
            self._renew(sent_s)
        self._backoff.reset()
        self._say("", f"member of cluster {self._settings.cluster!r}")

    def _talk(self, *, notified: bool) -> None:
        """Send one statement if there is news, and more for as long as the answers call for it."""
        again = True
        while again and self._member.registered:
            again = False
            with self._table.locked() as table:
                facts = table.read()
                plan = self._member.plan(facts, self._session, time.monotonic())
                renewal_due = time.monotonic() >= self._renewed_s + self._interval_s()
                if not (plan.is_news or renewal_due or notified):
                    break
                self._write(table, facts, plan)
            sent_s = time.monotonic()
            answer = self._coordinator.execute(plan.statement)
            self._member.take_in(plan.statement, answer)
            if not answer.ok:
                self._due_s = 0.0
                return
            self._take_in(plan, answer, sent_s)
            again = notified = bool(answer.got and self._member.is_hungry)
        self._wait()
        # Notifications that came with an answer no longer make the socket readable.
        self._notified |= self._coordinator.connected and self._coordinator.heard(self._member.name)

    def _write(self, table: LeaseTable, facts: LeaseFacts, plan: Plan) -> None:
        """Write the plan into the table before it is sent, so that what we give up is no longer used."""
        may = {}
        for name, channel in facts.channels.items():
            right, token = plan.rights.get(name, channel.right), plan.tokens.get(name, channel.token)
            wanted = usable(channel, right, token, self._member.targets, self._member.blocked)
            if wanted != channel.usable:
                may[name] = wanted
        table.put_floors(plan.floors)
        table.put_rights(plan.rights, plan.tokens, may)

    def _put_starts(self, table: LeaseTable, facts: LeaseFacts, answer: Answer) -> None:
        """For tokens that we did not have until now: what others started."""
        for token, wait_s in answer.not_before_s.items():
            channel = facts.channels.get(token.removesuffix(START))
            if channel is not None and not channel.token:
                table.put_not_before(channel.name, wait_s)
                if token in answer.starts_s or wait_s > 0:
                    table.put_starts(channel.name, answer.starts_s.get(token, ()), wait_s)

    def _take_in(self, plan: Plan, answer: Answer, sent_s: float) -> None:
        with self._table.locked() as table:
            facts = table.read()
            rights = {c.name: c.right + answer.got.get(c.name, 0) for c in facts.channels.values()}
            tokens = {
                c.name: c.token or bool(answer.got.get(c.name + START)) for c in facts.channels.values() if c.throttle_s
            }
            self._put_starts(table, facts, answer)
            may = {
                c.name: usable(c, rights[c.name], tokens.get(c.name, False), answer.targets, self._member.blocked)
                for c in facts.channels.values()
            }
            changed = {c: n for c, n in rights.items() if n != facts.channels[c].right}
            table.put_rights(changed, tokens, {c: n for c, n in may.items() if n != facts.channels[c].usable})
            table.put_floors({c.name: answer.floor.get(c.name, 0) for c in facts.channels.values()})
            self._renew(sent_s)
            for each in facts.slots:
                if answer.settled.get(each.database) == each.term != 0:
                    table.put_settled(each.slot, each.term)
            for database, slot in plan.dropped.items():
                table.forget(slot, database)
        for who, counts in answer.forgotten:
            reason = f"{who} did not come back; jobs that still run there are not counted"
            self._log.error("permits_given_up", reason=reason, permits=counts)
        if answer.differs != self._differs:
            self._differs = answer.differs
            for channel, said in answer.differs.items():
                who = ", ".join(f"{host} has {n}" for host, n in sorted(said.items()))
                self._log.error("capacities_differ", channel=channel, reason=f"the smallest holds: {who}")

    def _renew(self, sent_s: float) -> None:
        """Extend the deadline for starts, counted from before the statement was sent. DEADLINE, SENT"""
        self._renewed_s = sent_s
        self._table.lease_until(int((sent_s + LEASE_S - MARGIN_S) * 1e9), time.monotonic_ns())

    def _interval_s(self) -> float:
        return CONTENDED_S if self._member.is_hungry or self._member.targets else RENEW_S

    def _wait(self) -> None:
        """Set when to check again, and whether every exchange of a worker should wake us."""
        due_s = self._renewed_s + self._interval_s()
        spare_due_s = self._member.spare_due_s()
        if spare_due_s is not None:
            due_s = min(due_s, max(spare_due_s, time.monotonic() + _PAUSE_S))
        self._due_s = due_s
        self._table.watch(2 if self._member.targets else 1)

    def _lose(self, error: DatabaseError) -> None:
        """Close the lost session; the lease stays valid until it expires."""
        if self._watched_fd >= 0:
            self._loop.unregister(self._watched_fd)
            self._watched_fd = -1
        self._coordinator.close()
        self._member.lost()
        self._due_s = time.monotonic() + self._backoff.next_s()
        with self._table.locked():  # after the end of the lease: what may start within the floor does
            pass
        self._say(str(error), "")

    def _say(self, trouble: str, good: str) -> None:
        """Log each change once."""
        if trouble and not self._shown:
            reason = f"{trouble}; nothing starts after the lease's end, until the coordinator is back"
            self._log.warning("coordinator_lost", reason=reason)
        elif not trouble:
            self._log.info("coordinator_joined", reason=good)
        self._shown = trouble

    # -- the end -------------------------------------------------------------------------------------------------

    def _leave(self) -> bool:
        """Hand over what still runs, now that the workers are gone, and leave. True when done, or if impossible."""
        try:
            if not self._member.registered:
                self._register()
            with self._table.locked() as table:
                table.let_all_go()
            self._talk(notified=True)
            with self._table.locked() as table:
                facts = table.read()
            if any(channel.held for channel in facts.channels.values()):
                return False
            self._coordinator.execute(self._member.leave(facts, self._session))
        except DatabaseError as error:
            self._log.warning("coordinator_lost", reason=f"{error}; our leases run out by themselves")
        return True

    # -- what others may know ------------------------------------------------------------------------------------

    def _report(self, now_s: float) -> None:
        """Report to the master, for `status`."""
        if now_s < self._report_s:
            return
        self._report_s = now_s + _REPORT_S
        view = cluster_view(
            self._coordinator.ledger, self._settings.cluster, self._coordinator.clock_s, self._member.name
        )
        view |= {"connected": self._member.registered, "error": self._shown or None}
        if view != self._reported:
            self._reported = view
            self._pipe.send({"is": "cluster", "cluster": view})
