"""Given, when, then for a single handler: events in, and what the handler made of them.

Runs the handler as a subscription would, without one: no retries, no checkpoints, no waiting.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from headwater.storage.memory.store import MemoryEventStore
from headwater.storage.model import NewEvent, RecordedEvent
from headwater.subscriptions.handler import Context, Handler
from headwater.subscriptions.options import Delivery, SubscriptionOptions

Happened: TypeAlias = tuple[str, NewEvent]
"""A stream's name, and an event that was appended to it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events that a handler was given."""

    events: Sequence[RecordedEvent]
    error: Exception | None
    """What the handler raised; None when it handled them."""


class Scenario:
    """One handler under test::

    scenario = Scenario(Totals)
    await scenario.given(("order-1", NewEvent("OrderPlaced", {"total": 10})))
    outcome = await scenario.when(("order-1", NewEvent("OrderCancelled")))
    assert outcome.error is None
    assert scenario.handler.totals == {}
    """

    def __init__(self, handler: Any, *, store: MemoryEventStore | None = None, **options: Any) -> None:
        """``options`` are those of the subscription; ``store`` is one with event types or encryption, if need be."""
        self.handler: Any = handler() if inspect.isclass(handler) else handler
        """The function, or the one instance of the class."""
        self.store = MemoryEventStore() if store is None else store
        """Where the events stand, for handlers that read, and for their transactions."""
        self._options = SubscriptionOptions(**options)
        self._runs = Handler(self.handler, self._options)
        self._started = False

    async def given(self, *happened: Happened) -> None:
        """Let the handler handle what went before; raises what it raises."""
        outcome = await self.when(*happened)
        if outcome.error is not None:
            raise outcome.error

    async def when(self, *happened: Happened, attempt: int = 1, replaying: bool = False) -> Outcome:
        """Let the handler handle these events, in batches as it would get them; ends at its first error."""
        if not self._started:
            self._started = True
            await self._runs.start()
        events = [await self._recorded(stream, event) for stream, event in happened]
        size = self._options.batch_size
        for first in range(0, len(events), size):
            try:
                await self._handle(events[first : first + size], attempt, replaying)
            except Exception as error:  # noqa: BLE001  # what the handler raises is what the test asks about
                return Outcome(events, error)
        return Outcome(events, None)

    async def end(self) -> None:
        """Stop the handler, when it has a ``stop``."""
        await self._runs.stop()

    async def _recorded(self, stream: str, event: NewEvent) -> RecordedEvent:
        result = await self.store.append(stream, [event])
        return (await self.store.read(stream, start=result.last_version, limit=1))[0]

    async def _handle(self, events: Sequence[RecordedEvent], attempt: int, replaying: bool) -> None:
        if self._options.delivery is not Delivery.EXACTLY_ONCE:
            await self._runs(events, _context(attempt, replaying, None))
            return
        async with self.store.transaction() as transaction:
            await self._runs(events, _context(attempt, replaying, transaction))


def _context(attempt: int, replaying: bool, transaction: Any) -> Context:
    return Context(
        subscription="scenario",
        partition=0,
        epoch=1,
        attempt=attempt,
        replaying=replaying,
        consumer=0,
        transaction=transaction,
    )
