"""Checks of what callers pass in: a value that can never work is refused here, before anything is sent.

Never looks at what is stored.
"""

from __future__ import annotations

import functools
import uuid
from datetime import datetime
from typing import Any

from headwater.storage.errors import InvalidArgument, ReservedStream
from headwater.storage.model import ALL, MAX_BIGINT, MAX_NAME_BYTES, Expected, ExpectedVersion, Filter


def check_name(argument: str, name: object) -> str:
    """Return a stream, type, tag, subscription or snapshot name. Raises InvalidArgument."""
    if type(name) is not str:
        raise InvalidArgument(argument, f"must be a str, not {type(name).__name__}")
    return _checked_name(argument, name)


@functools.lru_cache(maxsize=8192)
def _checked_name(argument: str, name: str) -> str:
    if not name:
        raise InvalidArgument(argument, "must not be empty")
    if "\0" in name:
        raise InvalidArgument(argument, "must not contain a NUL character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(argument, "contains a lone surrogate, which is no Unicode text") from None
    if size > MAX_NAME_BYTES:
        raise InvalidArgument(argument, f"is {size} bytes long in UTF-8, the limit is {MAX_NAME_BYTES}")
    return name


def check_target(stream: object, action: str) -> str:
    """Return the name of a stream that is to be changed. Raises InvalidArgument, and ReservedStream for ALL."""
    name = check_name("stream", stream)
    if name == ALL:
        raise ReservedStream(ALL, action)
    return name


def check_number(argument: str, value: object, lowest: int = 0, highest: int = MAX_BIGINT) -> int:
    """Return a whole number in its range. Raises InvalidArgument."""
    if type(value) is not int:
        raise InvalidArgument(argument, f"must be a whole number, not {type(value).__name__}")
    if not lowest <= value <= highest:
        raise InvalidArgument(argument, f"must be from {lowest} to {highest}")
    return value


def check_expected(value: object) -> Expected:
    """Return an expected version. Raises InvalidArgument."""
    if isinstance(value, ExpectedVersion):
        return value
    if type(value) is not int or not 0 <= value <= MAX_BIGINT:
        raise InvalidArgument("expected_version", "must be a version from 0, ANY, NO_STREAM or STREAM_EXISTS")
    return value


def check_uuid(argument: str, value: object) -> uuid.UUID:
    """Return a UUID. Raises InvalidArgument."""
    if not isinstance(value, uuid.UUID):
        raise InvalidArgument(argument, f"must be a uuid.UUID, not {type(value).__name__}")
    return value


def check_time(argument: str, value: object) -> datetime:
    """Return a time with its zone. Raises InvalidArgument."""
    if not isinstance(value, datetime):
        raise InvalidArgument(argument, f"must be a datetime, not {type(value).__name__}")
    try:
        offset = value.utcoffset()
    except Exception as error:
        raise InvalidArgument(argument, f"has a time zone that does not work: {error}") from error
    if offset is None:
        raise InvalidArgument(argument, "must have a time zone, such as datetime.UTC")
    return value


def check_filter(where: Any) -> Filter:
    """Return a filter whose every part can be sent. Raises InvalidArgument."""
    if not isinstance(where, Filter):
        raise InvalidArgument("where", f"must be a Filter, not {type(where).__name__}")
    for field in ("types", "categories", "streams", "tags"):
        names = getattr(where, field)
        if isinstance(names, str) or not isinstance(names, tuple | list | frozenset | set):
            raise InvalidArgument(f"where.{field}", "must be a tuple of names")
        for name in names:
            check_name(f"where.{field}", name)
    if where.stream_prefix is not None:
        check_name("where.stream_prefix", where.stream_prefix)
    for field in ("since", "until"):
        if getattr(where, field) is not None:
            check_time(f"where.{field}", getattr(where, field))
    return where
