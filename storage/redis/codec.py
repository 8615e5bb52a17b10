"""How a hint is written on the wire: which channel belongs to a store, and what a message says.

Never trusts what it reads: whatever is not a head is None.
"""

from __future__ import annotations

from typing import Final

from headwater.storage.model import MAX_BIGINT, MAX_SESSION

PREFIX: Final = "headwater"
BEGUN: Final = "begun "


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
    return _number(_text(message), MAX_BIGINT)


def encode_begun(session: int) -> bytes:
    """Write that a session of the database server begins an append."""
    return f"{BEGUN}{session}".encode()


def decode_begun(message: object) -> int | None:
    """Read the number of a session that begins an append; None for anything else."""
    if not isinstance(message, bytes | str) or len(message) > len(BEGUN) + len(str(MAX_SESSION)):
        return None
    text = _text(message)
    return _number(text.removeprefix(BEGUN), MAX_SESSION) if text.startswith(BEGUN) else None


def _text(message: bytes | str) -> str:
    return message.decode("ascii", "replace") if isinstance(message, bytes) else message


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None
