"""How a hint is written on the wire: which channel belongs to a store, and what a message says.

Never trusts what it reads: whatever is not a head is None.
"""

from __future__ import annotations

from typing import Final

from headwater.storage.model import MAX_BIGINT, MAX_GATE, MAX_SESSION, Gate

PREFIX: Final = "headwater"
GATE: Final = " gate "
_LONGEST: Final = len(f"{MAX_BIGINT}{GATE}{MAX_SESSION} {MAX_GATE}")


def channel_of(database: str, schema: str) -> str:
    """Return the channel of a store; stores that share a Redis have channels of their own."""
    return f"{PREFIX}:{database}:{schema}"


def encode(head: int, gate: Gate | None = None) -> bytes:
    """Write a head as decimal digits, readable by any client that looks on, and after it where to wait for the next."""
    return str(head).encode() if gate is None else f"{head}{GATE}{gate.session} {gate.number}".encode()


def decode(message: object) -> tuple[int | None, Gate | None]:
    """Read a head and what comes with it; None for whatever is not one."""
    if not isinstance(message, bytes | str) or len(message) > _LONGEST:
        return None, None
    head, _, place = _text(message).partition(GATE)
    session, _, number = place.partition(" ")
    numbers = _number(session, MAX_SESSION), _number(number, MAX_GATE)
    gate = None if numbers[0] is None or numbers[1] is None else Gate(numbers[0], numbers[1])
    return _number(head, MAX_BIGINT), gate


def _text(message: bytes | str) -> str:
    return message.decode("ascii", "replace") if isinstance(message, bytes) else message


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None
