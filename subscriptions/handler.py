"""The user's handler, whatever its shape, called in one way; and what it may know about a delivery.

Never decides what a failure means: whatever the handler raises goes to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.storage.errors import ConfigurationError, InvalidArgument
from headwater.storage.model import RecordedEvent
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.raised import ordinary, refuse_unrun
from headwater.subscriptions.shape import takes_context
from headwater.subscriptions.thread import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a handler may know about the delivery in its hands."""

    subscription: str
    partition: int
    """Which partition of the subscription; 0 when there is one."""
    epoch: int
    """The fencing token: rises with each grant. A side effect that carries it can refuse an older owner's."""
    attempt: int
    """1 at first; more when the same events were handed out before and did not get through."""
    replaying: bool
    """True while events are handed out that were settled before: after a rewind, by a replay of a range, or by the
    version that this one replaces."""
    side_effects: bool = True
    """False while it replays and nothing outside must be touched: send no mail then, call nobody."""
    consumer: int
    """Which consumer of the subscription runs this, from 0."""
    transaction: Any = None
    """Exactly-once only: the connection of the transaction that also saves the checkpoint (psycopg's
    ``AsyncConnection`` for an async handler, ``Connection`` for a sync one). Write through it; do not commit it."""


class Handler:
    """One consumer's instance of a user's handler.

    Takes a function or a class with ``handle``, sync or async, of ``(event)`` or ``(event, context)``; with a batch
    size above 1 the first argument is a list. A class is made once and may have ``start`` and ``stop``. Sync code runs
    in a thread of its own, so that it never keeps the owner from renewing its lease.
    """

    def __init__(self, target: Any, options: SubscriptionOptions, name: str = "handler") -> None:
        self._name = name
        self._batched = options.batch_size > 1
        self._map: Callable[[RecordedEvent], Any] | None = None
        if options.mapper is not None:
            self._map = resolve(options.mapper)
        self._instance = target() if inspect.isclass(target) else target
        try:
            self._takes_context = takes_context(self._instance)
        except InvalidArgument as refused:
            raise ConfigurationError(f"{name}: {refused.problem}") from None
        call: Any = getattr(self._instance, "handle", None) or self._instance
        self._call = call
        self.is_async = _is_async(call)
        """Whether the handler is a coroutine function: decides which kind of transaction it gets."""
        self._thread = Worker(f"headwater-{name}")

    @classmethod
    def load(cls, path: str, options: SubscriptionOptions) -> Handler:
        """Import a handler by its path. Raises ImportPathError, ConfigurationError."""
        return cls(resolve(path), options, path)

    async def start(self) -> None:
        """Let a handler class open what it needs."""
        await self._optional("start")

    async def stop(self) -> None:
        """Let a handler class close what it opened; safe to repeat."""
        await self._optional("stop")
        self._thread.abandon()

    async def __call__(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Handle a delivery, on this loop when the handler is async, else in its thread."""
        if self.is_async:
            with _on_the_loop():
                for arguments in self._calls(events, context):
                    refuse_unrun(await self._call(*arguments))
        else:
            await self.in_thread(lambda: self.run(events, context))

    def run(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Handle a delivery right here: sync handlers only."""
        with _in_a_thread():
            for arguments in self._calls(events, context):
                refuse_unrun(self._call(*arguments))

    async def in_thread(self, work: Callable[[], None]) -> None:
        """Run ``work`` in this consumer's own thread; cancelled, the thread is left behind and replaced."""
        await self._thread.run(work)

    def _calls(self, events: Sequence[RecordedEvent], context: Context) -> list[tuple[Any, ...]]:
        subjects: list[Any] = list(events) if self._map is None else [self._map(event) for event in events]
        rest = (context,) if self._takes_context else ()
        if self._batched:
            return [(subjects, *rest)]
        return [(subject, *rest) for subject in subjects]

    async def _optional(self, name: str) -> None:
        method = getattr(self._instance, name, None)
        if inspect.isfunction(self._instance) or not callable(method):
            return
        if _is_async(method):
            with _on_the_loop():
                await method()
        else:
            await self.in_thread(_guarded(method))

    def __repr__(self) -> str:
        return f"<Handler {self._name} {'async' if self.is_async else 'sync'}>"


@contextlib.contextmanager
def _in_a_thread() -> Iterator[None]:
    """Let nothing out that ends more than a delivery: a thread of a handler's has no right to end the process."""
    try:
        yield
    except BaseException as error:
        stands_in = ordinary(error)
        if stands_in is error:
            raise
        raise stands_in from error


@contextlib.contextmanager
def _on_the_loop() -> Iterator[None]:
    """The same for a coroutine. A cancellation may be the owner's, and Ctrl-C may be meant by anybody: both pass."""
    mine = asyncio.current_task()
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:
        thrown_away = isinstance(error, GeneratorExit) and _current_task() is not mine
        stands_in = ordinary(error)
        if thrown_away or stands_in is error:
            raise
        raise stands_in from error


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _guarded(method: Callable[[], Any]) -> Callable[[], None]:
    def call() -> None:
        with _in_a_thread():
            method()

    return call


def _is_async(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
