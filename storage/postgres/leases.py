"""The leases of one process: one session of the server, on a thread of its own, that holds all of its locks.

Never blocks the event loop and never waits for another owner's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

import orjson

from headwater.storage.errors import ConfigurationError, HeadwaterError, StoreUnavailable
from headwater.storage.leases import Grant, News, PartitionKey, Progress
from headwater.storage.options import StoreOptions
from headwater.storage.outages import Outage, pauses
from headwater.storage.postgres.lease_link import LeaseLink, LinkSettings
from headwater.storage.postgres.statements import Statements

log = logging.getLogger(__name__)

Result = TypeVar("Result")

NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What a host says of itself where others look for hosts; it counts as alive while its session lives."""

    node: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Request:
    work: Callable[[LeaseLink], Any]
    answer: Future[Any]


class LeaseSession:
    """The ``Leases`` port: open it once in a process, close it at the end.

    1. What a session held is gone with it; the next one, opened by itself, holds nothing and has a higher number.
    2. ``valid_until`` counts from when the last answered statement was *sent*: the server cannot have heard it earlier,
       so it cannot end the session earlier than a whole lease after it.
    3. Only the thread touches the connection and changes what is held; everybody may read it.
    4. With ``stall``, nothing is held for longer than that (and a heartbeat) by an event loop that does not turn:
       others take over, and the next session is opened when the loop turns again.
    """

    def __init__(
        self,
        store: StoreOptions,
        *,
        host: str,
        presence: Presence | None = None,
        lease: timedelta = timedelta(seconds=3),
        heartbeat: timedelta | None = None,
        stall: timedelta | None = None,
    ) -> None:
        """``presence=None``: hold locks without being a host. ``heartbeat`` is a sixth of the lease by default.

        ``stall=None``: the event loop may be kept busy for as long as the program likes.
        """
        self._lease = lease.total_seconds()
        if not 1 <= self._lease <= 60:
            raise ConfigurationError(f"lease: {self._lease:g} s is not between 1 and 60 s")
        self._beat = self._lease / 6 if heartbeat is None else heartbeat.total_seconds()
        if not 0 < self._beat <= self._lease / 3:
            raise ConfigurationError(f"heartbeat: {self._beat:g} s is not below a third of the lease")
        self._margin = self._lease / 6
        self._stall = None if stall is None else stall.total_seconds()
        if self._stall is not None and self._stall < self._lease:
            raise ConfigurationError(f"stall: {self._stall:g} s is shorter than the lease of {self._lease:g} s")
        self.host = host
        self._presence = presence
        self._settings = LinkSettings(store, self._lease, host)
        self._sql = Statements(store.schema, store.payload)
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._opened: Future[None] = Future()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._loop_asked_at = NEVER
        self._loop_turns = threading.Event()
        self._loop_turns.set()
        self._when_lost: list[Callable[[int], None]] = []
        self._when_news: list[Callable[[News], None]] = []
        self._wake_read, self._wake_write = -1, -1
        self._accepting = threading.Lock()
        """Guards ``_connected``: no request may come in after the thread has answered the last one."""
        self._connected = False
        self._held: dict[int, int] = {}
        self._generation: int | None = None
        self.session = 0
        """The number of the latest session of this process; 0 before the first."""
        self.valid_until = NEVER
        """The monotonic time up to which the server certainly still holds what was granted."""

    async def open(self) -> None:
        """Open the first session; later ones are opened by themselves.

        Raises PoolerRefused, ConfigurationError, SchemaMissing, and StoreUnavailable when the database does not answer.
        """
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        # From here on it cannot be cancelled: the thread must not meet an answer that was taken from it meanwhile.
        self._opened.set_running_or_notify_cancel()
        # A daemon: a program that forgets to close the session still ends, and its locks are free at once.
        self._thread = threading.Thread(target=self._run, name="headwater-leases", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(self._opened)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session, which frees everything that it held. Safe to repeat."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing = True
        self._wake()
        await asyncio.to_thread(thread.join)
        os.close(self._wake_read)
        os.close(self._wake_write)

    async def claim(self, keys: Sequence[PartitionKey]) -> list[Grant]:
        """Try once to get each lease; see the port. What this session holds already is granted anew, one epoch on."""
        future = self._submit(lambda link: self._claim(link, keys))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)
            raise

    async def release(self, grants: Sequence[Grant]) -> None:
        """Give leases back at once. Grants that are lost, superseded or given back already are passed over."""
        if not all(self.lost(grant) for grant in grants):
            await asyncio.wrap_future(self._submit(lambda link: self._release(link, grants)))

    def lost(self, grant: Grant) -> bool:
        """Whether the grant is over: its session ended, it was given back, or granted anew."""
        return grant.session != self.session or self._held.get(grant.key.lock_id) != grant.epoch

    async def supervise(self) -> int | None:
        """Be, or become, the one that writes assignments: returns the plan's generation, or None while another is."""
        return await asyncio.wrap_future(self._submit(self._supervise))

    @property
    def connected(self) -> bool:
        """Whether there is a session now."""
        return self._connected

    def on_lost(self, tell: Callable[[int], None]) -> Callable[[], None]:
        """Call ``tell``, on the event loop that opened this, with the number of each session that is lost.

        Returns what ends that.
        """
        self._when_lost.append(tell)
        return lambda: self._when_lost.remove(tell)

    def on_news(self, tell: Callable[[News], None]) -> None:
        """Call ``tell``, on the event loop that opened this, with what others write, and with each new session.

        What others write while there is no session is missed.
        """
        self._when_news.append(tell)

    # Everything below runs on the thread, except _submit, _wake and _give_back, which any thread may call.

    def _submit(self, work: Callable[[LeaseLink], Result]) -> Future[Result]:
        answer: Future[Result] = Future()
        with self._accepting:
            if self._connected:
                self._requests.put(_Request(work, answer))
                self._wake()
            else:
                answer.set_exception(StoreUnavailable("there is no lease session now"))
        return answer

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the thread has been woken often enough
            os.write(self._wake_write, b".")

    def _give_back(self, claimed: Future[list[Grant]]) -> None:
        if not claimed.cancelled() and claimed.exception() is None and not self._closing:
            self._submit(lambda link: self._release(link, claimed.result()))

    def _run(self) -> None:
        try:
            self._keep_connected()
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
                return
            raise

    def _keep_connected(self) -> None:
        begun, tries = time.monotonic(), pauses()
        outage = Outage(log, f"{self.host} has no lease session", f"{self.host} has a lease session again")
        while not self._closing:
            try:
                link = self._connect()
            except HeadwaterError as error:
                still_held = isinstance(error, _PresenceHeld) and time.monotonic() - begun < 2 * self._lease
                if not self._opened.done() and not still_held:
                    raise
                outage.goes_on(error)
                self._pause(next(tries))
                continue
            outage.ends()
            try:
                self._serve(link)
            except HeadwaterError as error:
                outage.goes_on(error)
            finally:
                link.close()
                self._forget()
                tries = pauses()
            while not (self._closing or self._loop_turns.wait(0.05)):
                pass  # nothing could be done with what is granted

    def _connect(self) -> LeaseLink:
        sent = time.monotonic()
        link = LeaseLink(self._settings, self._sql, self._pass_on)
        try:
            self._arrive(link)
        except BaseException:
            link.close()
            raise
        self.session += 1
        self._renew(sent)
        with self._accepting:
            self._connected = True
        # Before whoever waits for the first session goes on: who listens from then on hears of later ones only.
        self._pass_on(News.CONNECTED)
        if not self._opened.done():
            self._opened.set_result(None)
        return link

    def _arrive(self, link: LeaseLink) -> None:
        if self._presence is None:
            return
        facts = orjson.dumps(dict(self._presence.facts)).decode()
        about = {"host": self.host, "node": self._presence.node, "facts": facts}
        ((_, locked),) = link.ask(self._sql.host_arrives, about)
        if not locked:
            raise _PresenceHeld(f"another process is the host {self.host!r}")

    def _serve(self, link: LeaseLink) -> None:
        while not self._closing:
            self._watch_loop()
            # A look is due by itself: requests that keep the session alive would put it off for ever.
            rest = min(link.asked_at + self._beat, link.look_at) - time.monotonic()
            if rest <= 0:
                # Before any request: one that needs no statement must not put the heartbeat off.
                link.heartbeat()
            elif (request := self._next_request()) is not None:
                self._answer(link, request)
            else:
                link.rest(rest, self._wake_read)
                self._drain_wake()
                continue
            self._renew(link.asked_at)

    def _watch_loop(self) -> None:
        """See whether the event loop turns, once for each heartbeat. Raises _LoopBlocked."""
        if self._stall is None:
            return
        since = time.monotonic() - self._loop_asked_at
        if not self._loop_turns.is_set():
            if since > self._stall:
                raise _LoopBlocked(kept_for=since, by=self._where_the_loop_is())
        elif since > self._beat:
            self._loop_asked_at = time.monotonic()
            self._loop_turns.clear()
            self._on_loop(threading.Event.set, self._loop_turns)

    def _where_the_loop_is(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return "its thread has ended"
        return ", called by ".join(
            f"{at.name} ({at.filename}:{at.lineno})" for at in reversed(traceback.extract_stack(frame)[-3:])
        )

    def _answer(self, link: LeaseLink, request: _Request) -> None:
        if not request.answer.set_running_or_notify_cancel():
            return
        try:
            result = request.work(link)
        except HeadwaterError as error:
            if link.closed:
                self._forget()
                request.answer.set_exception(error)
                raise
            request.answer.set_exception(error)
        else:
            request.answer.set_result(result)

    def _next_request(self) -> _Request | None:
        try:
            return self._requests.get_nowait()
        except queue.Empty:
            return None

    def _renew(self, sent: float) -> None:
        self.valid_until = sent + self._lease - self._margin

    def _forget(self) -> None:
        """Know that nothing is held any more; tells those who asked to be told."""
        if not self._connected:
            return
        lost = self.session
        with self._accepting:
            self._connected = False
        self.valid_until, self._held, self._generation = NEVER, {}, None
        self.session += 1
        while (request := self._next_request()) is not None:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(StoreUnavailable("the lease session has ended"))
        for tell in tuple(self._when_lost):  # the event loop adds and removes
            self._on_loop(tell, lost)

    def _pass_on(self, news: News) -> None:
        for tell in self._when_news:
            self._on_loop(tell, news)

    def _on_loop(self, tell: Callable[[Result], None], what: Result) -> None:
        assert self._loop is not None
        if self._closing:
            return
        try:
            self._loop.call_soon_threadsafe(tell, what)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The program's loop has ended without closing this: nobody can use what is held, so it is given back.
            self._closing = True

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._closing and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _claim(self, link: LeaseLink, keys: Sequence[PartitionKey]) -> list[Grant]:
        by_lock = {key.lock_id: key for key in keys}
        lock_ids = list(by_lock)
        held = [lock_id in self._held for lock_id in lock_ids]
        try:
            rows = link.ask(self._sql.claim_leases, {"lock_ids": lock_ids, "held": held, "host": self.host})
            ended = rows and link.ask(self._sql.end_older_transactions, {"lock_ids": [row[0] for row in rows]})
            left = [lock_id for lock_id, epoch, *_ in rows if epoch is None]
            if ended and left:  # it was one of those transactions that kept the row: it is free now
                again = {"lock_ids": left, "held": [i in self._held for i in left], "host": self.host}
                rows += link.ask(self._sql.claim_leases, again)
        except HeadwaterError:
            if not link.closed:
                # What the statement had locked before it failed stays locked: a session's locks outlive a rollback.
                link.ask(self._sql.unlock_partitions, {"lock_ids": [i for i in lock_ids if i not in self._held]})
            raise
        grants = []
        for lock_id, epoch, checkpoint, in_flight_to, attempt, stream_id, seam, _ in rows:
            if epoch is not None:
                self._held[lock_id] = epoch
                progress = Progress(checkpoint, in_flight_to, attempt, stream_id=stream_id)
                grants.append(
                    Grant(by_lock[lock_id], epoch, self.host, self.session, progress, seam and orjson.loads(seam))
                )
        return grants

    def _release(self, link: LeaseLink, grants: Sequence[Grant]) -> None:
        ours = [(grant.key.lock_id, grant.epoch) for grant in grants if not self.lost(grant)]
        if not ours:
            return
        lock_ids = [lock_id for lock_id, _ in ours]
        for lock_id in lock_ids:
            del self._held[lock_id]
        try:
            link.ask(self._sql.leave_partitions, {"lock_ids": lock_ids, "epochs": [epoch for _, epoch in ours]})
        finally:
            if not link.closed:
                link.ask(self._sql.unlock_partitions, {"lock_ids": lock_ids})

    def _supervise(self, link: LeaseLink) -> int | None:
        if self._generation is None:
            rows = link.ask(self._sql.claim_supervision, {"host": self.host})
            self._generation = rows[0][0] if rows else None
        return self._generation

    def __repr__(self) -> str:
        state = f"session {self.session}, {len(self._held)} held" if self._connected else "no session"
        return f"<LeaseSession of {self.host}: {state}>"


class _PresenceHeld(ConfigurationError):
    """The host's own lock is taken: by its previous session for up to a lease, or by another process for good."""


class _LoopBlocked(HeadwaterError):
    """Nothing can be delivered or given back here: code on the event loop does not let it go on."""

    kept_for: float
    by: str

    def describe(self) -> str:
        return f"the event loop has been kept for {self.kept_for:.0f} s by {self.by}: all it owned goes to others"
