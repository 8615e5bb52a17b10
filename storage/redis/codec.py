"""How a hint is written on the wire: which channel belongs to a store, and what a message says.

Never trusts what it reads: whatever is not a head is None.
"""

from __future__ import annotations

from typing import Final

from headwater.storage.model import MAX_BIGINT

PREFIX: Final = "headwater"


def channel_of(database: str, schema: str) -> str:
    """Return the channel of a store; stores that share a Redis have channels of their own."""
    return f"{PREFIX}:{database}:{schema}"


def encode(head: int) -> bytes:
    """Write a head as decimal digits, readable by any client that looks on."""
    return str(head).encode()


def decode(message: object) -> int | None:
    """Read a head; None for anything that is not one."""
    if not isinstance(message, bytes | str) or len(message) > len(str(MAX_BIGINT)):
        return None
    text = message.decode("ascii", "replace") if isinstance(message, bytes) else message
    if not (text.isascii() and text.isdigit()):
        return None
    head = int(text)
    return head if head <= MAX_BIGINT else None
