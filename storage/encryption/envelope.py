"""What an encrypted payload looks like in its column: valid JSON in a json column, bytes in a bytea column.

``{"$sealed":"<base64>"}``, or the same bytes behind a mark: a format byte, the key's id, and what the cipher made.
"""

from __future__ import annotations

import binascii
import uuid
from typing import Final, NamedTuple

_JSON_MARK: Final = b'{"$sealed":'
_BYTES_MARK: Final = b"\0$sealed\0"
_FORMAT: Final = b"\1"
_BODY: Final = 1 + 16


class Sealed(NamedTuple):
    """An envelope, opened so far as to see which key it needs."""

    key_id: uuid.UUID
    body: bytes


def seal(key_id: uuid.UUID, body: bytes, *, binary: bool) -> bytes:
    """Return the envelope around what a cipher made."""
    content = _FORMAT + key_id.bytes + body
    if binary:
        return _BYTES_MARK + content
    return _JSON_MARK + b'"' + binascii.b2a_base64(content, newline=False) + b'"}'


def is_sealed(raw: bytes) -> bool:
    """Whether a stored payload is an envelope."""
    return raw.startswith((_JSON_MARK, _BYTES_MARK))


def key_of(raw: bytes) -> uuid.UUID | None:
    """Return which key an envelope needs, without taking it apart; None for what is no envelope."""
    if raw.startswith(_JSON_MARK):
        start = raw.find(b'"', len(_JSON_MARK)) + 1
        try:
            content = binascii.a2b_base64(raw[start : start + 24])
        except ValueError:
            return None
    elif raw.startswith(_BYTES_MARK):
        content = raw[len(_BYTES_MARK) : len(_BYTES_MARK) + _BODY]
    else:
        return None
    return uuid.UUID(bytes=content[1:_BODY]) if len(content) >= _BODY else None


def parse(raw: bytes) -> Sealed | None:
    """Return what is in an envelope; None for what only looks like one."""
    if raw.startswith(_BYTES_MARK):
        content = raw[len(_BYTES_MARK) :]
    else:
        # jsonb puts a space behind the colon.
        text = raw[len(_JSON_MARK) :].strip()
        if not (text.startswith(b'"') and text.endswith(b'"}')):
            return None
        try:
            content = binascii.a2b_base64(text[1:-2], strict_mode=True)
        except ValueError:
            return None
    if len(content) <= _BODY or content[:1] != _FORMAT:
        return None
    return Sealed(uuid.UUID(bytes=content[1:_BODY]), content[_BODY:])
