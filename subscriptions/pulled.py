"""A batch in pull mode: events in the hands of the caller's own code, to be acknowledged as a whole or in parts.

Decides nothing: what it is told goes to the runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from headwater.storage.checks import check_number
from headwater.storage.errors import UnexpectedAck
from headwater.storage.model import RecordedEvent
from headwater.subscriptions.checks import check_kind
from headwater.subscriptions.core import inputs
from headwater.subscriptions.options import OnFailure
from headwater.subscriptions.ports import Delivered, Nack
from headwater.subscriptions.raised import described


class PulledBatch:
    """Some events in order.

    Every acknowledgement belongs to this delivery: once the events were handed to somebody else (a time-out, a lost
    lease, a subscriber that left) it raises UnexpectedAck and changes nothing.
    """

    def __init__(
        self,
        subscription: str,
        delivery: Delivered,
        answer: Callable[[inputs.Handled | inputs.Failed], None],
        mapper: Callable[[RecordedEvent], Any] | None,
    ) -> None:
        self.events: Sequence[RecordedEvent] = delivery.events
        self.attempt = delivery.attempt
        """1 at first; more when the same events were handed out before and not acknowledged."""
        self.epoch = delivery.grant.epoch
        """The fencing token: rises with each grant."""
        self.replaying = delivery.replaying
        """Whether all of it was settled before, and an operator has rewound the subscription."""
        self.side_effects = delivery.side_effects
        """False while it replays and an operator wants no effects outside."""
        self._subscription = subscription
        self._delivery_id = delivery.delivery_id
        self._answer = answer
        self._map = mapper
        self._open = {event.number for event in delivery.events}
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def items(self) -> list[Any]:
        """The events as the subscription's mapper makes them."""
        return list(self.events) if self._map is None else [self._map(event) for event in self.events]

    @property
    def over(self) -> bool:
        """Whether there is nothing left to acknowledge: all is, or the events are with somebody else."""
        return self._outcome.done()

    async def ack(self, *events: RecordedEvent | int) -> None:
        """Say that these events (themselves, or their numbers) are handled; without any: all that is left.

        Raises UnexpectedAck for what is not, or no longer, in flight in this delivery, InvalidArgument for what is no
        number; then nothing is acknowledged.
        """
        self._settle(frozenset([_number(event) for event in events]) if events else frozenset(self._open))

    async def ack_through(self, number: int) -> None:
        """Say that everything of this batch up to ``number`` is handled. Raises UnexpectedAck, InvalidArgument."""
        self._check(frozenset((_number(number),)))
        self._settle(frozenset(each for each in self._open if each <= number))

    async def nack(self, error: str | BaseException = "not handled", action: OnFailure | None = None) -> None:
        """Say that what is left was not handled, and why: in words, or by the exception that was caught.

        Without an action the failure policy decides (first: retry).

        Raises UnexpectedAck, InvalidArgument.
        """
        error = _words(error)
        if action is not None:
            check_kind("action", action, OnFailure)
        self._check(frozenset())
        self._open.clear()
        self._outcome.set_exception(Nack(error, action))
        self._answer(inputs.Failed(self._delivery_id, f"Nack: {error}", then=action))

    def pieces(self, size: int) -> list[PulledBatch]:
        """Take it apart into batches of up to ``size`` events, each with acknowledgements of its own."""
        return [_Piece(self, self.events[start : start + size]) for start in range(0, len(self.events), size)]

    async def until_over(self) -> None:
        """Wait until there is nothing left to acknowledge."""
        await asyncio.wait(self._ends())

    def _ends(self) -> list[asyncio.Future[None]]:
        return [self._outcome]

    def void(self) -> None:
        """Refuse every acknowledgement from now on."""
        self._outcome.cancel()

    def expire(self) -> None:
        """End the delivery: its time is over."""
        if not self._outcome.done():
            self._outcome.set_exception(TimeoutError("the batch was not acknowledged in time"))

    async def outcome(self) -> None:
        """Wait until all is acknowledged.

        Raises Nack, TimeoutError, or CancelledError when the delivery ended without an answer.
        """
        await self._outcome

    def _settle(self, numbers: frozenset[int]) -> None:
        self._check(numbers)
        self._open -= numbers
        if self._open:
            self._answer(inputs.Handled(self._delivery_id, numbers))
        else:
            self._outcome.set_result(None)
            self._answer(inputs.Handled(self._delivery_id))

    def _check(self, numbers: frozenset[int]) -> None:
        if self._outcome.done() or not numbers <= self._open:
            raise UnexpectedAck(self._subscription, self._delivery_id, min(numbers - self._open, default=None))

    def __repr__(self) -> str:
        return f"<PulledBatch {self._subscription} open={len(self._open)} attempt={self.attempt}>"


class _Piece(PulledBatch):
    """A part of a delivery: what is said of it goes to the whole. Not handled, it takes what is left of that along."""

    def __init__(self, whole: PulledBatch, events: Sequence[RecordedEvent]) -> None:
        self.events = events
        self.attempt = whole.attempt
        self.epoch = whole.epoch
        self.replaying = whole.replaying
        self.side_effects = whole.side_effects
        self._whole = whole
        self._subscription = whole._subscription
        self._delivery_id = whole._delivery_id
        self._map = whole._map
        self._open = {event.number for event in events}
        self._outcome = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        return self._outcome.done() or self._whole.over

    async def nack(self, error: str | BaseException = "not handled", action: OnFailure | None = None) -> None:
        self._check(frozenset())
        await self._whole.nack(error, action)
        self._open.clear()

    async def until_over(self) -> None:
        await asyncio.wait([self._outcome, *self._whole._ends()], return_when=asyncio.FIRST_COMPLETED)

    def _settle(self, numbers: frozenset[int]) -> None:
        self._check(numbers)
        self._open -= numbers
        if not self._open:
            self._outcome.set_result(None)
        self._whole._settle(numbers)

    def _check(self, numbers: frozenset[int]) -> None:
        self._whole._check(frozenset())
        super()._check(numbers)


def _number(event: RecordedEvent | int) -> int:
    return event.number if isinstance(event, RecordedEvent) else check_number("events", event)


def _words(error: str | BaseException) -> str:
    if isinstance(error, BaseException):
        return described(error)
    check_kind("error", error, str)
    return error
