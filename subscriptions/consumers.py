"""Consumers: executors of the handler. Here the one that runs it in this process.

Never retries and never decides: it runs one delivery and says how that went.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from headwater.storage.errors import ConfigurationError, UnexpectedAck
from headwater.storage.leases import Grant, Progress, Retried
from headwater.subscriptions.handler import Context, Handler
from headwater.subscriptions.ports import Delivered, Opener


class Transactions(Protocol):
    """Transactions that commit a handler's writes and the checkpoint together, or neither."""

    def open(self, grant: Grant, progress: Progress | Retried) -> AbstractAsyncContextManager[Any]:
        """Enter a transaction; leaving it without an error saves ``progress`` under the grant's epoch and commits.

        ``Retried`` settles a parked event instead.

        Raises StaleEpoch on leaving when another owner has been granted the lease since; nothing is written then.
        """
        ...

    def open_sync(self, grant: Grant, progress: Progress | Retried) -> AbstractContextManager[Any]:
        """The same for a sync handler, which runs in a thread."""
        ...


class LocalConsumer:
    """Runs a handler in this process, one delivery at a time."""

    def __init__(
        self, handler: Handler, transactions: Transactions | None, index: int = 0, *, opener: Opener | None = None
    ) -> None:
        """``opener`` opens events for the handler, in stores whose payloads are more than JSON."""
        self._handler = handler
        self._transactions = transactions
        self._index = index
        self._opener = opener

    async def start(self) -> None:
        """Start the handler. Call once, before the first delivery."""
        await self._handler.start()

    async def handle(self, delivery: Delivered) -> None:
        """Run the handler on a delivery; raises what the handler raised.

        With ``delivery.commit`` the handler's writes and that progress are committed together, or neither: StaleEpoch
        means that nothing was written.
        """
        if self._opener is not None:
            # Now, and not when they were read: a key may have been destroyed since.
            delivery = replace(delivery, events=await self._opener.open(delivery.events))
        if delivery.commit is None:
            await self._handler(delivery.events, self._context(delivery, None))
        elif self._transactions is None:
            raise ConfigurationError("this consumer has no transactions: exactly-once delivery goes to the owner's own")
        elif self._handler.is_async:
            async with self._transactions.open(delivery.grant, delivery.commit) as transaction:
                await self._handler(delivery.events, self._context(delivery, transaction))
        else:
            begin = functools.partial(self._transactions.open_sync, delivery.grant, delivery.commit)
            given_up = threading.Event()
            try:
                await self._handler.in_thread(lambda: self._run_in(begin, delivery, given_up))
            except asyncio.CancelledError:
                given_up.set()
                raise

    def _run_in(
        self, begin: Callable[[], AbstractContextManager[Any]], delivery: Delivered, given_up: threading.Event
    ) -> None:
        with begin() as transaction:
            self._handler.run(delivery.events, self._context(delivery, transaction))
            if given_up.is_set():
                # The thread was left behind: its events may be parked by now, or with the handler again.
                raise UnexpectedAck(delivery.grant.key.subscription, delivery.delivery_id)

    def _context(self, delivery: Delivered, transaction: Any) -> Context:
        grant = delivery.grant
        return Context(
            subscription=grant.key.subscription,
            partition=grant.key.partition,
            epoch=grant.epoch,
            attempt=delivery.attempt,
            replaying=delivery.replaying,
            side_effects=delivery.side_effects,
            consumer=self._index,
            transaction=transaction,
        )

    async def close(self) -> None:
        """Stop the handler; safe to repeat."""
        await self._handler.stop()

    def __repr__(self) -> str:
        return f"<LocalConsumer {self._index} of {self._handler!r}>"
