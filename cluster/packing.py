"""How a delivery crosses to a handler actor: as bytes, column by column, because that is many times cheaper.

Knows nothing of Ray, which carries bytes as they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from headwater.storage.model import RecordedEvent, ViewedEvent
from headwater.subscriptions.ports import Delivered

_ID: Final = RecordedEvent._fields.index("raw_id")
_ID_BYTES: Final = 16
_new_event = partial(tuple.__new__, RecordedEvent)


def pack(delivery: Delivered) -> bytes:
    """Write a delivery down for another process of this cluster."""
    columns = _columns(delivery.events)
    if delivery.grant.seam is not None:
        # Of use to the owner only, and as long as there are partitions.
        delivery = replace(delivery, grant=replace(delivery.grant, seam=None))
    if columns is not None:
        delivery = replace(delivery, events=())
    return pickle.dumps((delivery, columns), pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> Delivered:
    """Read what :func:`pack` wrote; only ever from a process of the same cluster."""
    delivery: Delivered
    delivery, columns = pickle.loads(packed)  # noqa: S301  the owner wrote it, under the same user
    return delivery if columns is None else replace(delivery, events=_events(columns))


def _columns(events: Sequence[Any]) -> list[Any] | None:
    """Turn events into columns, the ids as one piece of bytes; None for what is not made of stored events.

    They travel as they are stored: what an opened one shows stays here, and is found out anew where it is handled.
    """
    if not events or any(type(event) not in (RecordedEvent, ViewedEvent) for event in events):
        return None
    columns: list[Any] = list(zip(*events, strict=True))
    columns[_ID] = b"".join(columns[_ID])
    return columns


def _events(columns: list[Any]) -> list[RecordedEvent]:
    ids = columns[_ID]
    starts = range(0, len(ids), _ID_BYTES)
    columns[_ID] = [ids[start : start + _ID_BYTES] for start in starts]
    return list(map(_new_event, zip(*columns, strict=True)))
