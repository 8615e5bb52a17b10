"""Leases, checkpoints and parked events in memory: the durable side of subscriptions for tests and simulations.

Keeps the same promises as the Postgres adapters, within one process: epochs fence every write.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from headwater.storage import parking
from headwater.storage.errors import StaleEpoch, StoreUnavailable, UnexpectedAck
from headwater.storage.leases import Boundary, Grant, Halt, ParkedEvent, PartitionKey, Progress, RetryBegun, ToRetry
from headwater.storage.parking import BEHIND, FAILED, HELD, Open, ParkedChange, Plan
from headwater.storage.registry import ALL_PARKED, ParkedFilter


@dataclass(slots=True)
class _Pace:
    """How fast the events of one retry may be handed out."""

    every: float
    next_at: float
    """The next one goes no earlier, by the clock of the rows."""


@dataclass(slots=True)
class _Row:
    """What the database would hold of one partition."""

    progress: Progress
    boundary: Boundary = field(default_factory=Boundary)
    epoch: int = 0
    rewinds: int = 0
    writes: dict[str, int] = field(default_factory=dict)
    """The number of the last write of each kind under this epoch."""
    holder: int | None = None
    phase: str = "new"
    reason: str | None = None
    halt: Halt | None = None
    halt_number: tuple[int, int] = (0, 0)
    consumers: int | None = None
    delivered: int = 0
    redelivered: int = 0
    parked: dict[int, ParkedEvent] = field(default_factory=dict)
    """What was set aside and is not settled, by position."""
    retrying: set[int] = field(default_factory=set)
    """Positions of parked events that an operator wants to be handled again."""
    begun: dict[int, int] = field(default_factory=dict)
    """How often parked events were handed out without an answer, by position."""
    edited: dict[int, bytes] = field(default_factory=dict)
    """Corrected payloads of parked events, by position."""
    paced: dict[int, _Pace] = field(default_factory=dict)
    """The pace of the retries that have one, by position."""

    def close(self, position: int) -> None:
        """Forget a parked event: it is settled, or comes again by itself."""
        del self.parked[position]
        self.retrying.discard(position)
        self.paced.pop(position, None)
        self.begun.pop(position, None)
        self.edited.pop(position, None)

    def in_key(self, key: str | None) -> list[int]:
        """Return the positions that are parked of a key, in order."""
        return [] if key is None else [each for each in sorted(self.parked) if self.parked[each].key == key]


class MemoryCoordination:
    """The rows that every owner of a test shares: make one, and a ``MemoryLeases`` for each owner.

    1. At most one session holds a partition.
    2. A write under an epoch that is not the partition's raises StaleEpoch and changes nothing.
    3. So does one that was sent before a rewind and comes after it, of what a rewind changes.
    4. One that comes after another of its kind with a higher number changes nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        """What the rates of retries go by."""
        self._rows: dict[PartitionKey, _Row] = {}
        self._sessions = count(1)

    def new_session(self) -> int:
        """Return the number of a new session; it holds nothing."""
        return next(self._sessions)

    def row(self, key: PartitionKey) -> _Row:
        """Return the partition's row, made at first sight."""
        return self._rows.setdefault(key, _Row(Progress(0)))

    def start_at(self, key: PartitionKey, checkpoint: int, stream_id: int | None = None) -> None:
        """Let a partition begin after a number, in an incarnation of its stream: what registration does."""
        self.row(key).progress = Progress(checkpoint, stream_id=stream_id)

    def fenced(self, grant: Grant) -> _Row:
        """Return the row that a grant may read, and of which it may tell what happens there. Raises StaleEpoch."""
        row = self.row(grant.key)
        if row.epoch != grant.epoch:
            raise _stale(grant)
        return row

    def writable(self, grant: Grant) -> _Row:
        """Return the row that a grant may write: nobody has rewound it since either. Raises StaleEpoch."""
        row = self.fenced(grant)
        if row.rewinds != grant.rewinds:
            raise _stale(grant)
        return row

    def overtaken(self, grant: Grant, kind: str) -> bool:
        """Whether a write of this kind comes after one that was sent later; notes it when not."""
        writes = self.row(grant.key).writes
        if grant.write < writes.get(kind, 0):
            return True
        writes[kind] = grant.write
        return False

    def in_turn(self, grant: Grant, kind: str) -> _Row:
        """Return the row that a grant may write, for a write that is not overtaken. Raises StaleEpoch."""
        row = self.writable(grant)
        if self.overtaken(grant, kind):
            raise _stale(grant)
        return row

    def set_back(self, grant: Grant) -> _Row:
        """Return the row for a try to set its checkpoint back; refuses what was sent before. Raises StaleEpoch."""
        row = self.fenced(grant)
        if row.rewinds >= grant.rewinds:
            raise _stale(grant)
        row.rewinds = grant.rewinds
        return row

    def release_session(self, session: int) -> None:
        """Free everything that a session holds: what the server does when a connection ends."""
        for row in self._rows.values():
            if row.holder == session:
                row.holder = None


class MemoryLeases:
    """One owner's session."""

    def __init__(self, coordination: MemoryCoordination, owner: str, *, valid_until: float = math.inf) -> None:
        self._coordination = coordination
        self._owner = owner
        self._session: int | None = coordination.new_session()
        self.valid_until = valid_until
        """The monotonic time up to which grants certainly hold; set it to play a late heartbeat."""
        self._when_lost: list[Callable[[int], None]] = []

    async def claim(self, keys: Sequence[PartitionKey]) -> list[Grant]:
        if self._session is None:
            raise StoreUnavailable("the session has ended")
        grants = []
        for key in keys:
            row = self._coordination.row(key)
            if row.holder in (None, self._session):
                row.holder = self._session
                row.epoch += 1
                row.rewinds = 0
                row.writes.clear()
                grants.append(Grant(key, row.epoch, self._owner, self._session, row.progress))
        return grants

    async def release(self, grants: Sequence[Grant]) -> None:
        for grant in grants:
            row = self._coordination.row(grant.key)
            if row.holder == grant.session and row.epoch == grant.epoch:
                row.holder = None

    def lost(self, grant: Grant) -> bool:
        row = self._coordination.row(grant.key)
        return grant.session != self._session or row.holder != self._session or row.epoch != grant.epoch

    def on_lost(self, tell: Callable[[int], None]) -> Callable[[], None]:
        self._when_lost.append(tell)
        return lambda: self._when_lost.remove(tell)

    @property
    def session_ended(self) -> bool:
        """Whether a new session is needed before anything can be claimed."""
        return self._session is None

    def end_session(self) -> None:
        """Play the end of the connection: everything it held is free for others."""
        if self._session is not None:
            ended, self._session = self._session, None
            self._coordination.release_session(ended)
            for tell in tuple(self._when_lost):
                tell(ended)

    def reconnect(self) -> None:
        """Open a new session; it holds nothing of the old one."""
        self.end_session()
        self._session = self._coordination.new_session()


class MemoryCheckpoints:
    """Progress, status and parked events of all partitions."""

    def __init__(self, coordination: MemoryCoordination) -> None:
        self._coordination = coordination

    async def save(self, grant: Grant, progress: Progress, *, conn: Any = None, durable: bool = False) -> None:  # noqa: ARG002  # memory has one durability
        row = self._coordination.writable(grant)
        if conn is not None:
            if progress.checkpoint <= row.progress.checkpoint:
                raise UnexpectedAck(grant.key.subscription, number=progress.checkpoint)
            undo: Callable[[Callable[[], None]], None] = conn.on_rollback
            before = row.progress, row.delivered, row.redelivered
            undo(lambda: _restore(row, *before))
        elif self._coordination.overtaken(grant, "save"):
            return
        row.delivered += progress.delivered
        row.redelivered += progress.redelivered
        reborn = progress.stream_id != row.progress.stream_id
        if reborn or progress.checkpoint >= row.progress.checkpoint:
            row.progress = replace(progress, delivered=0, redelivered=0)

    async def load(self, grant: Grant) -> Progress:
        return self._coordination.writable(grant).progress

    async def rewind(
        self,
        grant: Grant,
        progress: Progress,
        *,
        settled: int = 0,
        side_effects: bool = True,
        commands: Sequence[int] = (),  # noqa: ARG002  # in memory a rewind is asked for directly
    ) -> None:
        row = self._coordination.set_back(grant)
        reborn = progress.stream_id != row.progress.stream_id
        until = 0 if reborn else max(row.boundary.until, settled)
        row.boundary = Boundary(until, side_effects=side_effects)
        if reborn and row.progress.stream_id is not None:
            # Its numbers are not those of the events that are parked: these wait for no checkpoint any more.
            row.parked = {position: _standing_at(0, each) for position, each in row.parked.items()}
        else:
            # They come again by themselves, and nothing waits behind them.
            for each in [each for each in row.parked.values() if each.key is None]:
                if each.event.number > progress.checkpoint:
                    row.close(each.event.position)
        row.progress = replace(progress, delivered=0, redelivered=0)

    async def take_back(self, grant: Grant, progress: Progress) -> None:
        row = self._coordination.set_back(grant)
        row.delivered += progress.delivered
        row.redelivered += progress.redelivered
        row.progress = replace(progress, delivered=0, redelivered=0)

    async def boundary(self, grant: Grant) -> Boundary:
        return self._coordination.fenced(grant).boundary

    async def report(self, grant: Grant, phase: str, reason: str | None) -> None:
        row = self._coordination.fenced(grant)
        if self._coordination.overtaken(grant, "report"):
            raise _stale(grant)
        row.phase, row.reason = phase, reason

    async def halt(self, grant: Grant, number: int, halt: Halt | None) -> None:
        row = self._coordination.fenced(grant)
        if row.halt_number < (grant.epoch, number):
            row.halt, row.halt_number = halt, (grant.epoch, number)

    async def halted(self, grant: Grant) -> Halt | None:
        return self._coordination.fenced(grant).halt

    async def report_consumers(self, grant: Grant, consumers: int) -> None:
        self._coordination.fenced(grant).consumers = consumers

    async def park(self, grant: Grant, parked: Sequence[ParkedEvent]) -> None:
        row = self._coordination.in_turn(grant, "park")
        for each in parked:
            here = row.parked.get(each.event.position)
            row.parked[each.event.position] = each if here is None else _standing_at(each.event.number, here)

    async def parked_keys(self, grant: Grant) -> set[str]:
        row = self._coordination.fenced(grant)
        return {each.key for each in row.parked.values() if each.key is not None}


class MemoryParking:
    """The parked events that are to be handled again."""

    def __init__(self, coordination: MemoryCoordination) -> None:
        self._coordination = coordination

    def retry_parked(
        self,
        key: PartitionKey,
        where: ParkedFilter = ALL_PARKED,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> ParkedChange:
        """Ask for parked events to be handled again: at most ``limit``, and at most ``rate`` a second.

        What comes along, what counts and what waits then is as in a database.
        """
        every = parking.seconds_between(rate)
        pace = None if every is None else _Pace(every, self._coordination.clock())
        return self._change(key, parking.retry(self._open(key, where), limit), pace=pace, dry_run=dry_run)

    def cancel_retry(
        self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, *, dry_run: bool = False
    ) -> ParkedChange:
        """Take back what was asked to be handled again and was not begun, with the later ones of the same keys."""
        return self._change(key, parking.cancel(self._open(key, where)), dry_run=dry_run)

    def discard_parked(
        self,
        key: PartitionKey,
        where: ParkedFilter = ALL_PARKED,
        *,
        limit: int | None = None,
        release: bool = False,
        dry_run: bool = False,
    ) -> ParkedChange:
        """Give parked events up. What waited behind them is handed out only if it is to be released."""
        plan = parking.discard(self._open(key, where), limit, release=release)
        return self._change(key, plan, dry_run=dry_run)

    def _open(self, key: PartitionKey, where: ParkedFilter) -> list[Open]:
        row = self._coordination.row(key)
        return [
            Open(
                position,
                each.key,
                "retrying" if position in row.retrying else "parked",
                each.reason,
                row.begun.get(position, 0) > 0,
                _meant(each, where),
            )
            for position, each in sorted(row.parked.items())
        ]

    def _change(self, key: PartitionKey, plan: Plan, *, pace: _Pace | None = None, dry_run: bool) -> ParkedChange:
        row = self._coordination.row(key)
        for position, (status, reason) in () if dry_run else plan.becomes.items():
            row.retrying.discard(position)
            row.paced.pop(position, None)
            if status == "discarded":
                row.close(position)
                continue
            row.parked[position] = replace(row.parked[position], reason=reason)
            if status == "retrying":
                row.retrying.add(position)
                begun = row.begun.pop(position, 0)
                row.parked[position] = replace(row.parked[position], attempts=row.parked[position].attempts + begun)
                if pace is not None:
                    row.paced[position] = pace
        return plan.change

    def edit(self, key: PartitionKey, position: int, payload: bytes) -> None:
        """Let a parked event be handled again with another payload, as JSON."""
        self._coordination.row(key).edited[position] = payload

    async def to_retry(self, grant: Grant, *, limit: int = 100) -> list[ToRetry]:
        row = self._coordination.fenced(grant)
        held_up: set[str] = set()
        seen: set[str] = set()
        paces: list[_Pace] = []
        found = []
        for position, each in sorted(row.parked.items()):
            pace = row.paced.get(position)
            asked = position in row.retrying or each.reason == BEHIND
            free = each.key not in held_up and (pace is None or each.key not in seen)
            if each.key is not None:
                seen.add(each.key)
                if not asked or pace is not None:
                    held_up.add(each.key)
            if not asked or not free or any(pace is other for other in paces):
                continue
            wait = 0.0
            if pace is not None:
                paces.append(pace)
                wait = max(pace.next_at - self._coordination.clock(), 0.0)
            begun = row.begun.get(position, 0)
            found.append(ToRetry(position, each.key, each.attempts + begun, begun, each.event.number, wait))
        return found[:limit]

    async def begin_retry(self, grant: Grant, position: int) -> RetryBegun | None:
        row = self._coordination.in_turn(grant, "retry")
        each = row.parked.get(position)
        if each is None or (position not in row.retrying and each.reason != BEHIND):
            return None
        if row.in_key(each.key)[:1] not in ([], [position]):
            return None
        pace = row.paced.get(position)
        if pace is not None:
            now = self._coordination.clock()
            if now < pace.next_at:
                return None
            pace.next_at = now + pace.every
        row.retrying.add(position)
        row.begun[position] = row.begun.get(position, 0) + 1
        return RetryBegun(row.edited.get(position))

    async def retried(self, grant: Grant, position: int, key: str | None, error: str | None = None) -> None:
        row = self._coordination.in_turn(grant, "retry")
        each = row.parked.pop(position, None)
        row.retrying.discard(position)
        row.paced.pop(position, None)
        begun = row.begun.pop(position, 1)
        if error is None:
            row.edited.pop(position, None)
        if error is None or each is None:
            return
        row.parked[position] = replace(each, reason=FAILED, error=error, attempts=each.attempts + begun)
        for later in row.in_key(key):
            if later > position:
                row.retrying.discard(later)
                row.paced.pop(later, None)
                if row.parked[later].reason == HELD:
                    row.parked[later] = replace(row.parked[later], reason=BEHIND)


def _meant(parked: ParkedEvent, where: ParkedFilter) -> bool:
    event = parked.event
    return (
        (where.positions is None or event.position in where.positions)
        and where.key in (None, parked.key)
        and where.stream in (None, event.stream)
        and where.type in (None, event.type)
        and (where.error is None or where.error in (parked.error or ""))
    )


def _standing_at(number: int, parked: ParkedEvent) -> ParkedEvent:
    return replace(parked, event=parked.event._replace(number=number))


def _stale(grant: Grant) -> StaleEpoch:
    return StaleEpoch(grant.key.subscription, grant.key.partition, grant.epoch)


def _restore(row: _Row, progress: Progress, delivered: int, redelivered: int) -> None:
    row.progress, row.delivered, row.redelivered = progress, delivered, redelivered
