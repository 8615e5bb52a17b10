"""Writers that do random things to a store while everything goes wrong, and remember what was confirmed."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeVar

import psycopg

from headwater.storage.errors import HeadwaterError, StoreUnavailable, WrongExpectedVersion
from headwater.storage.model import AppendResult, NewEvent, StreamAppend
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events

Answer = TypeVar("Answer")

STREAMS: Final = tuple(f"s-{number}" for number in range(5))


@dataclass(frozen=True)
class Confirmed:
    """An append that was confirmed; it began and ended at these ticks of the history's clock."""

    began: int
    ended: int
    result: AppendResult
    ids: Sequence[uuid.UUID]


@dataclass
class History:
    """What the writers did."""

    clock: count[int] = field(default_factory=count)
    confirmed: list[Confirmed] = field(default_factory=list)
    undone: set[uuid.UUID] = field(default_factory=set)
    """Events of transactions that rolled back."""
    removed: set[int] = field(default_factory=set)
    """Positions of events that were deleted for good."""
    done: Counter[str] = field(default_factory=Counter)
    """How often each kind of thing was done."""
    links: int = 0
    """Links that were confirmed; a few more may have been made when the connection broke."""

    def note(self, began: int, result: AppendResult, batch: Sequence[NewEvent]) -> None:
        """Remember a confirmed append."""
        self.confirmed.append(Confirmed(began, next(self.clock), result, [event.id for event in batch]))


class Writer:
    """Does random things, one after the other."""

    def __init__(self, store: PostgresEventStore, url: str, history: History, seed: int) -> None:
        self._store = store
        self._url = url
        self._history = history
        self._random = random.Random(seed)

    async def run(self, turns: int) -> None:
        """Do so many things, each chosen by chance."""
        actions = [self.append, *self.kinds()]
        for _ in range(turns):
            action = self._random.choice(actions)
            await action()
            self._history.done[action.__name__] += 1

    def kinds(self) -> list[Callable[[], Awaitable[None]]]:
        """Return everything that a writer can do."""
        appends = [self.append, self.append_exactly, self.append_to_many]
        return [*appends, self.link, self.roll_back, self.commit_late, self.delete]

    async def append_last(self) -> None:
        """Append what ends the history, by its stream's name."""
        batch = events(1)
        await self._confirm(batch, lambda: self._store.append("end", batch))

    async def append(self) -> None:
        """Append to the end of a stream."""
        stream, batch = self._random.choice(STREAMS), events(self._random.randint(1, 4))
        await self._confirm(batch, lambda: self._store.append(stream, batch))

    async def append_exactly(self) -> None:
        """Append where the stream was seen to end, if it still ends there."""
        stream, batch = self._random.choice(STREAMS), events(2)
        version = (await retried(lambda: self._store.read_page(stream, 0, 1))).head
        with suppress(WrongExpectedVersion):
            await self._confirm(batch, lambda: self._store.append(stream, batch, version))

    async def append_to_many(self) -> None:
        """Append to three streams at once."""
        batches = {stream: events(self._random.randint(1, 2)) for stream in self._random.sample(STREAMS, 3)}
        began = next(self._history.clock)
        appends = [StreamAppend(stream, batch) for stream, batch in batches.items()]
        for result in await retried(lambda: self._store.append_to_many(appends)):
            self._history.note(began, result, batches[result.stream])

    async def link(self) -> None:
        """Link some event."""
        page = await retried(lambda: self._store.read_page(self._random.choice(STREAMS), 0, 50))
        if page.events:
            # One that is linked already, and a connection that broke, are all the same here: no link is confirmed.
            with suppress(HeadwaterError):
                await self._store.link("links", [self._random.choice(page.events)])
                self._history.links += 1

    async def roll_back(self) -> None:
        """Append in a transaction that does not commit."""
        batch = events(3)
        self._history.undone |= {event.id for event in batch}
        with suppress(psycopg.Error, StoreUnavailable):
            async with await psycopg.AsyncConnection.connect(self._url) as conn:
                await self._store.append(self._random.choice(STREAMS), batch, conn=conn)
                await conn.rollback()

    async def commit_late(self) -> None:
        """Hold the store's order for a while, as a slow commit does."""
        stream, batch, began = self._random.choice(STREAMS), events(2), next(self._history.clock)
        try:
            async with await psycopg.AsyncConnection.connect(self._url) as conn:
                result = await self._store.append(stream, batch, conn=conn)
                await conn.execute("SELECT pg_sleep(0.02)")
        except (psycopg.Error, StoreUnavailable):
            # Whether it was committed is not known; sent again, it is.
            await self._confirm(batch, lambda: self._store.append(stream, batch))
        else:
            self._history.note(began, result, batch)

    async def delete(self) -> None:
        """Make a stream and delete it for good: its positions become holes."""
        batch = events(2)
        stream = f"gone-{batch[0].id}"
        result = await retried(lambda: self._store.append(stream, batch))
        self._history.removed |= set(range(result.first_position, result.last_position + 1))
        while (await retried(lambda: self._store.read_page(stream, 0, 1))).head:
            with suppress(StoreUnavailable):
                await self._store.delete_stream(stream, hard=True)

    async def _confirm(self, batch: Sequence[NewEvent], call: Callable[[], Awaitable[AppendResult]]) -> None:
        began = next(self._history.clock)
        self._history.note(began, await retried(call), batch)


async def retried(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Call until it is answered: what a caller may do with the same events when the connection broke."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0)
