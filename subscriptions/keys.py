"""Partition keys by name: which events must stay in order with each other.

Never looks at anything but the event.
"""

from __future__ import annotations

from typing import Any

from headwater.storage.errors import ConfigurationError
from headwater.storage.model import RecordedEvent, category_of
from headwater.subscriptions.core.seam import KeyFunction, Marks, Seam
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.options import SubscriptionOptions


def key_function(partition_by: str | None) -> KeyFunction | None:
    """Return the function that ``partition_by`` names; None stands for the stream, which costs nothing.

    Raises ConfigurationError for a name that means nothing, ImportPathError for a path that does not import.
    """
    if partition_by is None or partition_by == "stream":
        return None
    if partition_by == "none":
        return lambda event: None  # noqa: ARG005
    if partition_by == "category":
        return lambda event: category_of(event.stream)
    if partition_by == "correlation_id":
        return lambda event: event.correlation_id
    part, dot, name = partition_by.partition(".")
    if dot and name and ":" not in partition_by and part in ("data", "metadata"):
        return _field(part, name)
    if ":" in partition_by:
        found: KeyFunction = resolve(partition_by)
        return found
    raise ConfigurationError(
        f"partition_by {partition_by!r}: write 'stream', 'none', 'category', 'correlation_id', 'data.<field>', "
        "'metadata.<field>' or the import path of a function of the event"
    )


def _field(part: str, name: str) -> KeyFunction:
    def key(event: RecordedEvent) -> object:
        values = getattr(event, part)
        # An event without the field has no order among its like; that is no fault.
        return values.get(name) if isinstance(values, dict) else None

    return key


def sieve_of(options: SubscriptionOptions, partition: int = 0, seam: Any | None = None) -> Sieve:
    """Build the sieve of one partition, with the seam of its grant. Raises ConfigurationError, ImportPathError."""
    return Sieve(
        selector=resolve(options.selector) if options.selector is not None else None,
        key=key_function(options.partition_by),
        partitions=options.partitions,
        partition=partition,
        seam=Seam([Marks.from_json(marks) for marks in seam], key_function) if seam else None,
    )
