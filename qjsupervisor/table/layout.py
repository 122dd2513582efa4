"""The layout of the shared semaphore table.  [spec]

One anonymous MAP_SHARED mapping of fixed size, created by the master before any fork and touched lazily. All words
have eight bytes in native byte order and are aligned, so one store is one machine store: a process killed between two
stores leaves old or new words, never half a word. S = slots (databases), C = channels, SW/CW = words of a bitmap over
slots/channels. Bit i of a bitmap is bit i % 64 of its word i // 64.

    header        HEADER_WORDS   see `Header`
    mutex         8              the lock (mutex.py)
    active        CW             bit c: somebody waits in channel c                                   derived
    closed        CW             bit c: channel c itself has no room now                              derived
    throttled     CW             bit c: closed by its throttle or its rate, opens by itself           derived
    short         CW             bit c: channel c holds less than its minimum                         derived
    waiting       SW             bit s: database s waits, and holds no grant it did not take yet      derived
    unserved      SW             bit s: database s waits and was granted nothing since it began to  derived
    needy         SW             bit s: database s holds less than its minimum                        derived
    full          SW             bit s: database s holds its maximum                                  derived
    granted       SW             bit s: database s holds a grant it did not take yet                  derived
    classes       8 x SW         bit s of row k: database s has the k-th weight             master, at assign
    channel       C x            `Channel` words, turn words, name, waiting slots bitmap (SW)
    slot          S x            `Slot` words, name, message, `Statistics` words, demand order (C x uint16)
    cell          S x C x 8      `Cell` words: one database in one channel
    server        R x            `Server` words, name, reason, users (SW): an Odoo or a PostgreSQL    servers.py
    ring          C x RING_WORDS the last starts of a channel with a rate                             rates.py

Who writes what, and under which lock
    Header.GATE, .CLASSES, slot names, classes  the master only, without the lock
    Slot counters, heartbeat, target, message   the slot's own worker, without the lock
    Statistics                                  the slot's own worker, without the lock; the master clears
                                                `OUTCOMES_HERE` when it gives a free slot to a database
    Cell.PENDING, Cell.NOT_DUE                  the slot's own worker, without the lock
    Server.SUCCESS_NS                           any worker, without the lock: the last one counts
    everything else                             whoever holds the lock
    Readers without the lock (status, monitor) see each word whole, but not one moment of the table.

Truth and what follows from it
    Cell.HELD and Cell.FAILED are the truth: a permit exists because a HELD word says so. Channel.TOTAL and
    Channel.FAILED are sums of them; the four bitmaps and the waiting slots follow from slots and channels. Header.DIRTY
    is set before the first and cleared after the last store of a change; who takes the lock and finds it set (or finds
    that the former holder died) recomputes all that is derived and adds one to Header.REPAIRS, on which each worker
    writes its own HELD words afresh (semaphore.py).

Rates
    The ring of a channel holds its last starts, and is the truth of them: rates.py has its invariants, and the order of
    stores by which a death costs starts and never gives one too many. A start is counted before HELD says so; it is
    taken back under the lock where nobody is asked to run the job, and moved to the moment it is sent. Repair mends
    each ring. Slot.STARTS is 1 while the worker of s reads what was started before this table was: then
    Header.STARTS_UNREAD, the number of such slots (derived), is not 0, and each channel with a rate is closed.

Shares
    Slot.MIN, .MAX, .RESERVE are written by the master, in a free slot without the lock; Header.SHARES is 1 once any
    slot had some. Slot.TOTAL is the sum of its HELD words; `needy`, `full`, Slot.DEFICIT and their sum,
    Header.RESERVED, follow from these, so a repair computes them afresh.
    Channel.MIN, .RESERVE and .WEIGHT are settings of a channel. Invariants, whenever the lock is free and DIRTY is 0:
        short(c)   = TOTAL(c) < MIN(c)
        LACK(c)    = the greater one of KEPT(c) and, with RESERVE, MIN(c) - TOTAL(c)
        KEPT(c)    = sum of LACK over the channels directly below c
        TOTAL(c) + KEPT(c) <= CAPACITY(c), for the root with Header.RESERVED too, once what was found running, or ran
                     when sizes were changed, is over: nothing is granted that would break it. (A job that counts for
                     a reserved minimum of its channel and of its database leaves one permit for both when it ends.)
    PASS, OWN_PASS and CLOCK affect only the order; a death may leave a start uncounted.

Servers
    A record is taken by the first worker that depends on its address, and free for another address once no bit of
    `users` is set. Server.STATE is the truth. Invariants, whenever the lock is free and Header.DIRTY is 0:
        STATE down                     FAILURES > 0, and PROBER is the slot that tries it again, or 0: whoever of its
                                       users looks next does
        STATE up or unknown            FAILURES = 0, no reason; PROBER is 0 unless a doubt is being checked
        PROBER = s + 1                 the worker of s begins a probe before LEASE_NS, or another one takes over
    Repair dismisses a prober whose change was cut off, and clears what a server that is not down must not
    have. When a worker dies, the master does the same for its slot and wakes all (`try_after_death`). The next worker
    of a slot clears the slot's bits in `users` before it sets its own.
"""

from __future__ import annotations

from typing import Final

from ..channelspec import MAX_NAME_BYTES
from ..rates import RING_WORDS
from ..states import JobOutcome

WORD: Final = 8
NAME_BYTES: Final = MAX_NAME_BYTES
MESSAGE_BYTES: Final = 256
#: Distinct weights of `fairness_weights`.
MAX_CLASSES: Final = 8
MAGIC: Final = 0x716A73_0001


class Header:
    """Words of the header."""

    MAGIC: Final = 0
    SLOTS: Final = 1
    CHANNELS: Final = 2
    START_BARRIER: Final = 3  # 1: the start barrier is over, permits are granted
    DIRTY: Final = 4
    SEQUENCE: Final = 5  # incremented whenever the lock is taken; shows a holder that makes no progress
    REPAIRS: Final = 6
    USED_CHANNELS: Final = 7
    GENERATION: Final = 8  # incremented at each change of a channel's settings
    CLASSES: Final = 9  # how many different weights were ever assigned                   master, at assign
    LEASE_UNTIL_NS: Final = 10  # monotonic; no start after it; without a cluster: for ever           broker
    BROKER_WATCHES: Final = 11  # an exchange wakes the broker: 1: that leaves a demand, 2: always    broker
    BROKER_HEARTBEAT_NS: Final = 12  # when it was last seen alive                                    broker
    BROKER_SESSION: Final = 13  # number of its last session with the coordinator                     broker
    USED_SERVERS: Final = 14
    STARTS_UNREAD: Final = 15  # slots whose STARTS is 1: channels with a rate are closed             derived
    NEXT_OPEN_NS: Final = 16  # no throttled channel opens before; NEVER_NS: none will                derived
    SHARES: Final = 17  # 1: databases have minimums or maximums                                      master
    RESERVED: Final = 18  # permits of the root that are kept free: the sum of DEFICIT                derived
    FLOORS: Final = 19  # 1: channels have a FLOOR                                                     broker
    FLOORED: Final = 20  # 1: the lease is over, and each CAPACITY is its channel's FLOOR


HEADER_WORDS: Final = 24
NEVER_NS: Final = 1 << 62


class Channel:
    """Words of a channel record."""

    FLAGS: Final = 0
    PARENT: Final = 1  # index of the parent's record, -1 for the root
    CAPACITY: Final = 2  # -1: no limit of its own
    THROTTLE_NS: Final = 3
    NOT_BEFORE_NS: Final = 4  # monotonic; no start before it
    TOTAL: Final = 5  # permits held in it and below it, over all databases          derived
    FAILED: Final = 6  # failed jobs directly in it, over all databases              derived
    CAPACITY_DEFAULT: Final = 7  # -1: none
    NAME_LENGTH: Final = 8
    CONFIGURED: Final = 9  # the capacity as configured; CAPACITY is less where a cluster leases it
    RIGHT: Final = 10  # permits leased; CAPACITY is at most that                               broker
    TOKEN: Final = 11  # 1: starts in a throttled channel are leased to us                      broker
    RATE: Final = 12  # starts in any RATE_NS; 0: no limit
    RATE_NS: Final = 13
    RATE_DEFAULT: Final = 14
    RATE_DEFAULT_NS: Final = 15
    STARTS_KNOWN_NS: Final = 16  # monotonic, before the table was: starts up to then are in the ring    kept_starts.py
    RETIRED_AT: Final = 17  # Header.GENERATION since which it is retired; of a worker that read later it knows nothing
    MIN: Final = 18  # permits of its parent that it is guaranteed
    RESERVE: Final = 19  # 1: they are kept free also while it does not wait
    WEIGHT: Final = 20  # starts in turn beside the other branches of its parent; 0: none given
    LACK: Final = 21  # permits of its parent that are kept free for it, itself or by what is below it  derived
    KEPT: Final = 22  # permits of its own that are kept free: the sum of LACK directly below it        derived
    PASS: Final = 23  # of it as a branch of its parent, of its own jobs, and the clock: see branches.py
    OWN_PASS: Final = 24
    CLOCK: Final = 25
    RATE_SINCE_NS: Final = 26  # when it was given a rate: what was counted before is not in the ring
    FLOOR: Final = 27  # permits that may be used after the end of the lease; at most RIGHT               broker


CHANNEL_WORDS: Final = 28


class Flag:
    """Bits of Channel.FLAGS."""

    SEQUENTIAL: Final = 1
    PAUSED: Final = 2
    RETIRED: Final = 4  # no longer configured: nothing is granted in it
    SEQUENTIAL_DEFAULT: Final = 8
    MADE: Final = 16  # by an ancestor's defaults: in no configuration, and gives no defaults itself


class Slot:
    """Words of a slot record."""

    EPOCH: Final = 0  # incremented for each database assigned to the slot
    PID: Final = 1
    WEIGHT: Final = 2
    HEARTBEAT_NS: Final = 3
    GRANT: Final = 4  # channel + 1 of a permit granted and not yet taken (it is in HELD already); 0: none
    DEMAND: Final = 5  # length of the demand order
    WAITING_SINCE_NS: Final = 6
    PENDING: Final = 7
    RUNNING: Final = 8
    FAILED: Final = 9
    WAIT_DEPENDENCIES: Final = 10
    DISPATCHED: Final = 11
    FINISHED: Final = 12
    RATE_SINCE_NS: Final = 13  # a moment one to two minutes ago, while jobs end; 0: not known yet
    RATE_FINISHED: Final = 14  # FINISHED as it was then
    STARTS: Final = 15  # 1: its worker reads what was started before; 2: that was read
    NAME_LENGTH: Final = 16
    MESSAGE_LENGTH: Final = 17
    GRANTED_NS: Final = 18  # when GRANT was written
    OLDEST_US: Final = 19  # UTC microseconds since which the oldest due job waits; 0: none does
    TERM: Final = 21  # of a cluster: the tenure in which its jobs were counted; 0: they are not
    SETTLED: Final = 22  # the tenure that the coordinator knows of                             broker
    LET_GO: Final = 23  # 1: another runner leads; the permits go when the coordinator has them
    TREE: Final = 24  # Header.GENERATION as of which its worker knows the channels; 0: it uses none of them
    MIN: Final = 25  # permits that it is guaranteed
    MAX: Final = 26  # the most it may hold; 0: no limit
    RESERVE: Final = 27  # 1: the minimum is kept free also while it does not wait
    TOTAL: Final = 28  # permits that it holds in all channels                                       derived
    DEFICIT: Final = 29  # with RESERVE: what it lacks of MIN                                        derived


SLOT_WORDS: Final = 30
#: Values of Slot.STARTS: earlier starts in a database are not known, are being read, or are in the rings.
STARTS_UNKNOWN, STARTS_UNREAD, STARTS_KNOWN = range(3)

#: Upper bounds in seconds of a histogram's buckets; one more bucket holds what is above them.
WAITED_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
DURATION_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Statistics:
    """Words of a slot's statistics. Each only grows, for as long as the table lives, whatever database sits there.

    So their sums over all slots are Prometheus counters. A histogram is one word for each bucket (not cumulative),
    then the sum of what was observed, in microseconds.
    """

    OUTCOMES: Final = 0  # by JobOutcome
    OUTCOMES_HERE: Final = OUTCOMES + len(JobOutcome)  # by JobOutcome, of the database that sits here
    STATUSES: Final = OUTCOMES_HERE + len(JobOutcome)  # by the answer's first digit; 0: no answer
    WAITED: Final = STATUSES + 6  # a histogram
    WAITED_WORDS: Final = len(WAITED_S) + 2
    DURATION: Final = WAITED + WAITED_WORDS  # a histogram for each JobOutcome
    DURATION_WORDS: Final = len(DURATION_S) + 2
    WORDS: Final = DURATION + len(JobOutcome) * DURATION_WORDS


class Cell:
    """Words of a cell."""

    HELD: Final = 0  # permits that this database holds directly in this channel
    FAILED: Final = 1  # its failed jobs directly in this channel
    PENDING: Final = 2
    KEY: Final = 3  # three words: the order key of its best job that waits here
    NOT_DUE: Final = 6  # of PENDING, those whose eta is in the future


CELL_WORDS: Final = 8


class Server:
    """Words of the record of a server that databases depend on."""

    NAME_LENGTH: Final = 0
    STATE: Final = 1  # states.TargetState
    FAILURES: Final = 2  # failed probes since it went down, including the failure that took it down
    REASON_LENGTH: Final = 3
    SINCE_NS: Final = 4  # when STATE last became up or down
    RETRY_NS: Final = 5  # when the prober's next probe is due
    PROBER: Final = 6  # slot + 1 of the worker that probes; 0: nobody
    LEASE_NS: Final = 7  # when another worker takes its place, unless it moves this
    PROBED_NS: Final = 8  # when the last probe began that has ended
    DOUBT_NS: Final = 9  # when something last failed that may be the server's fault; later than PROBED_NS: to be probed
    SUCCESS_NS: Final = 10  # when a job was last run there
    UNANSWERED: Final = 11  # requests let go since its last answer: their jobs were over, no answer came
    DIGEST: Final = 12  # of its name; -1: the record is being written


SERVER_WORDS: Final = 13


def bitmap_words(bits: int) -> int:
    """Number of words of a bitmap with this many bits."""
    return (bits + 63) // 64


class Layout:
    """Word offsets in a table of `slots` databases, `channels` channels and `servers` servers.

    `channel`, `slot`, `cell` and `server` are the offsets of the first record; names beginning with one of them are
    offsets within a record.
    """

    def __init__(self, slots: int, channels: int, servers: int) -> None:
        self.slots = slots
        self.channels = channels
        self.servers = servers
        slot_bits, channel_bits = bitmap_words(slots), bitmap_words(channels)
        self.mutex = HEADER_WORDS
        self.active = self.mutex + 8
        self.closed = self.active + channel_bits
        self.throttled = self.closed + channel_bits
        self.short = self.throttled + channel_bits
        self.waiting = self.short + channel_bits
        self.unserved = self.waiting + slot_bits
        self.needy = self.unserved + slot_bits
        self.full = self.needy + slot_bits
        self.granted = self.full + slot_bits
        self.classes = self.granted + slot_bits
        self.channel = self.classes + MAX_CLASSES * slot_bits
        self.channel_turns = CHANNEL_WORDS  # per class a cursor and a pass; then the clock of the passes (turns.py)
        self.channel_clock = self.channel_turns + 2 * MAX_CLASSES
        self.channel_name = self.channel_clock + 1
        self.waiting_slots_in = self.channel_name + NAME_BYTES // WORD
        self.channel_size = self.waiting_slots_in + slot_bits
        self.slot = self.channel + channels * self.channel_size
        self.slot_name = SLOT_WORDS
        self.slot_message = self.slot_name + NAME_BYTES // WORD
        self.slot_statistics = self.slot_message + MESSAGE_BYTES // WORD
        self.slot_order = self.slot_statistics + Statistics.WORDS
        self.slot_size = self.slot_order + (channels * 2 + WORD - 1) // WORD
        self.cell = self.slot + slots * self.slot_size
        self.server = self.cell + slots * channels * CELL_WORDS
        self.server_name_bytes = NAME_BYTES
        self.server_name = SERVER_WORDS
        self.server_reason = self.server_name + NAME_BYTES // WORD
        self.server_users = self.server_reason + MESSAGE_BYTES // WORD
        self.server_size = self.server_users + slot_bits
        self.ring = self.server + servers * self.server_size
        self.total_bytes = (self.ring + channels * RING_WORDS) * WORD
