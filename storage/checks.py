"""Checks of what callers pass in: a value that can never work is refused here, before anything is sent.

Never looks at what is stored.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncIterable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from headwater.storage.errors import AlreadyLinked, InvalidArgument, ReservedStream
from headwater.storage.model import (
    ALL,
    MAX_BIGINT,
    MAX_NAME_BYTES,
    Expected,
    ExpectedVersion,
    Filter,
    RecordedEvent,
    Snapshot,
)
from headwater.storage.store import StreamSort

MAX_PAGE: Final = 2**31 - 1


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


def keepable(text: str) -> str:
    """Return what can be stored of words that anything may have made, such as the text of an exception."""
    return text.replace("\0", "").encode(errors="replace").decode()


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


def check_range(start: object, limit: object) -> None:
    """Refuse a start that is no number (any sign will do) and a limit below 0. Raises InvalidArgument."""
    if start is not None:
        check_number("start", start, -MAX_BIGINT - 1)
    check_number("limit", limit)


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
        value.astimezone(UTC)
    except Exception as error:
        raise InvalidArgument(argument, f"has a time zone that does not work: {error}") from error
    if offset is None:
        raise InvalidArgument(argument, "must have a time zone, such as datetime.UTC")
    return value


def check_created_at(argument: str, value: object) -> datetime:
    """Return a time that can be stored and read back in every time zone. Raises InvalidArgument."""
    time = check_time(argument, value)
    if not 2 <= time.year <= 9998:
        raise InvalidArgument(argument, "must lie in the years 2 to 9998")
    return time


def _as_tuple(names: object) -> str:
    return f"({names!r:.100},)" if isinstance(names, str) else '("one", "other")'


def check_filter(where: Any) -> Filter:
    """Return a filter whose every part can be sent. Raises InvalidArgument."""
    if not isinstance(where, Filter):
        raise InvalidArgument("where", f"must be a Filter, not {type(where).__name__}")
    for field in ("types", "categories", "streams", "tags"):
        names = getattr(where, field)
        if isinstance(names, str) or not isinstance(names, tuple | list | frozenset | set):
            raise InvalidArgument(f"where.{field}", f"must be a tuple of names: write {_as_tuple(names)}")
        for name in names:
            check_name(f"where.{field}", name)
    if where.stream_prefix is not None:
        check_name("where.stream_prefix", where.stream_prefix)
    for field in ("since", "until"):
        if getattr(where, field) is not None:
            check_time(f"where.{field}", getattr(where, field))
    return where


def check_link_ids(stream: str, events: object) -> list[uuid.UUID]:
    """Return the ids of the events to be linked. Raises InvalidArgument, AlreadyLinked for one named twice."""
    if isinstance(events, str | RecordedEvent) or not isinstance(events, Sequence):
        raise InvalidArgument("events", f"must be a list of events or ids, not {type(events).__name__}")
    if not events:
        raise InvalidArgument("events", "must not be empty")
    ids = [event.id if isinstance(event, RecordedEvent) else check_uuid("events", event) for event in events]
    seen: set[uuid.UUID] = set()
    for id in ids:
        if id in seen:
            raise AlreadyLinked(stream, id, named_twice=True)
        seen.add(id)
    return ids


def check_flag(argument: str, value: object) -> bool:
    """Return a truth value. Raises InvalidArgument."""
    if not isinstance(value, bool):
        raise InvalidArgument(argument, f"must be True or False, not {type(value).__name__}")
    return value


def check_search(value: object) -> str:
    """Return a part of a name to search for; None and the empty text find everything. Raises InvalidArgument."""
    return "" if value is None or value == "" else check_name("search", value)


def check_sort(value: object) -> StreamSort:
    """Return a column to sort streams by. Raises InvalidArgument."""
    if not isinstance(value, str) or value not in get_args(StreamSort):
        raise InvalidArgument("sort", f"must be one of {', '.join(get_args(StreamSort))}")
    return cast("StreamSort", value)


def check_listing_page(page: object, page_size: object) -> tuple[int, int]:
    """Return the page's number and size, whose product can still be counted. Raises InvalidArgument."""
    return check_number("page", page, 1, MAX_PAGE), check_number("page_size", page_size, 1, MAX_PAGE)


def check_snapshot(snapshot: object) -> Snapshot:
    """Return a snapshot whose every part but the payload can be saved. Raises InvalidArgument."""
    if not isinstance(snapshot, Snapshot):
        raise InvalidArgument("snapshot", f"must be a Snapshot, not {type(snapshot).__name__}")
    check_name("snapshot.source", snapshot.source)
    check_number("snapshot.version", snapshot.version)
    check_name("snapshot.type", snapshot.type)
    check_number("snapshot.schema_version", snapshot.schema_version, 1, 32767)
    if snapshot.created_at is not None:
        check_created_at("snapshot.created_at", snapshot.created_at)
    return snapshot


def check_callable(argument: str, value: object) -> None:
    """Refuse what is neither None nor a function. Raises InvalidArgument."""
    if value is not None and not callable(value):
        raise InvalidArgument(argument, f"must be a function, not {type(value).__name__}")


def check_many(argument: str, value: object) -> None:
    """Refuse what cannot be gone through, one after the other. Raises InvalidArgument."""
    if not isinstance(value, Iterable | AsyncIterable):
        raise InvalidArgument(argument, f"must be iterable, not {type(value).__name__}")
