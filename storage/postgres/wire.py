"""What libpq's own functions take: the server's placeholders, and parameters in their binary form.

Never sends anything.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final

_PLACEHOLDER: Final = re.compile(rb"%(?:\((\w+)\))?s")


@functools.lru_cache(maxsize=256)
def numbered(statement: bytes) -> tuple[bytes, Sequence[str]]:
    """Return a statement with $1, $2, ... for the driver's placeholders, and the names of these, in that order.

    Without names, each is another parameter. The statement must not have a %% in it.
    """
    names: list[str] = []

    def number(placeholder: re.Match[bytes]) -> bytes:
        name = (placeholder[1] or b"").decode()
        if not name or name not in names:
            names.append(name)
            return b"$%d" % len(names)
        return b"$%d" % (names.index(name) + 1)

    return _PLACEHOLDER.sub(number, statement), tuple(names)


def wire(value: Any) -> bytes | None:
    """Return a parameter as it is sent: null, a number (as bigint), a text, an array, or what is bytes already."""
    sent: bytes | None
    if value is None or type(value) is bytes:
        sent = value
    elif type(value) is int:
        sent = value.to_bytes(8, signed=True)
    else:
        sent = value.encode() if type(value) is str else value.wire
    return sent
