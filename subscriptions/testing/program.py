"""A user's program in a simulated history: his handler, under his options, on his events.

Decides nothing: what goes wrong around the handler is the weather's.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any, Final, TypeAlias, cast

import orjson

from headwater.storage.errors import InvalidArgument
from headwater.storage.filters import matches
from headwater.storage.model import ALL, NewEvent, RecordedEvent
from headwater.subscriptions.checks import check_kind
from headwater.subscriptions.handler import Context, Handler
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.options import ORIGIN, Delivery, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.scenario import Happened

Events: TypeAlias = Sequence[Happened] | Callable[[Random], Happened]
"""What is appended in a history: these events in this order, or one after the other as a function draws them."""

SOON: Final = timedelta(milliseconds=10)
SOMETIMES: Final = timedelta(seconds=1)


class Program:
    """The user's part of one history. Close it at the end.

    1. A class is made anew for each consumer of each owner: what it keeps in itself is gone with the owner.
    2. An async handler runs on a loop of its own, to its end, in no virtual time.
    """

    def __init__(self, handler: Any, options: SubscriptionOptions | None, events: Events | None) -> None:
        """Raises InvalidArgument for what a simulated history cannot show; ConfigurationError for no handler."""
        self.options = _simulated(options)
        self.handled: dict[int, RecordedEvent] = {}
        """By position, what the handler has handled at least once: its effects are there."""
        self._handler = handler
        self._events = events
        self._made: dict[tuple[int, int], Handler] = {}
        self._versions: dict[str, int] = {}
        self._selector = None if self.options.selector is None else resolve(self.options.selector)
        self._drawn = _in_order(events) if isinstance(events, Sequence) else None
        self._thread = ThreadPoolExecutor(1, "headwater-simulated")
        self._loop = asyncio.Runner()
        if not inspect.isclass(handler):
            Handler(handler, self.options)

    def next_event(self, random: Random, position: int) -> RecordedEvent | None:
        """Build the event that is stored next; None when there are no more."""
        if self._drawn is not None:
            happened = next(self._drawn, None)
            if happened is None:
                return None
        elif self._events is None:
            happened = (f"stream-{random.randrange(6)}", NewEvent("Happened", {"n": position}))
        else:
            happened = _checked(cast("Callable[[Random], Happened]", self._events)(random))
        stream, event = happened
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        kind = event.type or type(event.data).__name__
        made = recorded(position, stream, version=version, type=kind, data=event.data, metadata=event.metadata)
        return made._replace(raw_tags=list(event.tags) or None, schema_version=event.schema_version)

    def wants(self, event: RecordedEvent) -> bool:
        """Whether the subscription delivers an event at all."""
        return matches(self.options.where, event) and (self._selector is None or bool(self._selector(event)))

    def call(self, events: Sequence[RecordedEvent], context: Context) -> BaseException | None:
        """Let the handler handle a delivery; returns what it raised."""
        handler = self._made.get((context.epoch, context.consumer))
        try:
            if handler is None:
                handler = Handler(self._handler, self.options)
                self._run(handler.start())
                self._made[context.epoch, context.consumer] = handler
            if handler.is_async:
                self._run(handler(events, context))
            else:
                handler.run(events, context)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the failure policy deals with it
            return error
        self.handled.update((event.position, event) for event in events)
        return None

    def close(self) -> None:
        """Stop what was made."""
        for handler in self._made.values():
            with suppress(Exception):
                self._run(handler.stop())
        self._thread.submit(self._loop.close).result()
        self._thread.shutdown()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        # In a thread: the test that simulates may run on a loop itself.
        self._thread.submit(self._loop.run, work).result()


def _simulated(options: SubscriptionOptions | None) -> SubscriptionOptions:
    """Return options with delays that fit into a history. Raises InvalidArgument for what it cannot show."""
    options = SubscriptionOptions() if options is None else options
    check_kind("options", options, SubscriptionOptions)
    for wrong, problem in (
        (
            options.delivery is Delivery.EXACTLY_ONCE,
            "exactly-once effects are the database's affair: simulate the rest",
        ),
        (options.source != ALL, "the store-wide order is simulated: leave the source out, and narrow it by 'where'"),
        (options.start is not ORIGIN, "a history begins with an empty store: leave 'start' out"),
        (options.replaces is not None, "there is no older version in a history: leave 'replaces' out"),
    ):
        if wrong:
            raise InvalidArgument("options", problem)
    return replace(
        options,
        partitions=1,  # one partition does what all would do together, in one order more
        retry=_quick(options.retry),
        poll_interval=min(options.poll_interval, SOMETIMES),
        checkpoint_interval=min(options.checkpoint_interval, SOMETIMES),
    )


def _quick(policy: RetryPolicy) -> RetryPolicy:
    by_error = tuple((kind, _quick(one)) for kind, one in policy.by_error)
    return replace(policy, first_delay=min(policy.first_delay, SOON), max_delay=SOMETIMES, by_error=by_error)


def _in_order(events: Sequence[Happened]) -> Iterator[Happened]:
    return iter([_checked(happened) for happened in events])


def _checked(happened: Any) -> Happened:
    if isinstance(happened, tuple) and len(happened) == 2 and isinstance(happened[0], str):
        stream, event = happened
        if isinstance(event, NewEvent):
            try:
                orjson.dumps([event.data, event.metadata])
            except TypeError as error:
                raise InvalidArgument("events", f"JSON cannot say the payload of {event!r}: {error}") from None
            return stream, event
    raise InvalidArgument("events", f"each is a stream's name and a NewEvent, not {happened!r:.100}")
