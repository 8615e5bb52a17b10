"""Generated arguments, most of which can never work, for every public call of a store."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

from hypothesis import strategies as st

from headwater.storage.model import (
    ALL,
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendCondition,
    Filter,
    ImportedEvent,
    NewEvent,
    Snapshot,
    StreamAppend,
)


def _hashable(value: object) -> bool:
    return type(value).__hash__ is not None


INJECTIONS = [
    "'; DROP TABLE headwater.events; --",
    '"; DROP SCHEMA "headwater" CASCADE; --',
    "bystander'--",
    "bystander%",
    "bystander\\",
    "' OR '1'='1",
    "%s",
    "%(stream)s",
    "$1",
    "{bystander}",
    '{"a","b"}',
    "NULL",
    "\\x00",
    "\u202ebystander",
    "*",
    "$all ",
    "$ALL",
    "../bystander",
    "bystander\n",
    "x" * 512,
    "x" * 513,
    "ü" * 257,
    "x" * 100_000,
]

objects = st.sampled_from(
    [
        None,
        True,
        7,
        1.5,
        b"bytes",
        [],
        ["a"],
        {},
        {"a": 1},
        (),
        object(),
        Decimal(1),
        float("nan"),
        uuid.UUID(int=9),
        ANY,
    ]
)
texts = st.one_of(
    st.sampled_from(["mine", "mine-1", "other", ALL, "", "\0", "nul\0byte", "\ud800", "a\udfffb", *INJECTIONS]),
    st.text(st.characters(exclude_categories=()), max_size=12),
)
names = st.one_of(texts, objects)
numbers = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**400]),
    st.sampled_from(["1", float("inf"), -0.0, 1e300]),
    objects,
)
expected = st.one_of(st.sampled_from([ANY, NO_STREAM, STREAM_EXISTS]), numbers)
ids = st.one_of(
    st.integers(0, 30).map(lambda n: uuid.UUID(int=n + 1)), st.sampled_from(["", str(uuid.UUID(int=1))]), objects
)
zones = st.sampled_from([UTC, None, timezone(timedelta(hours=14)), timezone(timedelta(hours=-23, minutes=-59))])
times = st.one_of(
    st.none(),
    st.datetimes(timezones=zones),
    st.sampled_from([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), "2013-01-01"]),
    objects,
)
payloads = st.recursive(
    st.one_of(names, numbers, times, st.just("\0"), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names.filter(_hashable), inner, max_size=3)),
    max_leaves=6,
)


tags = st.one_of(st.just(()), st.lists(names, max_size=3).map(tuple), objects)
new_events = st.one_of(
    st.builds(
        NewEvent,
        type=names,
        data=payloads,
        metadata=st.one_of(st.none(), payloads),
        id=ids,
        causation_id=st.one_of(st.none(), ids),
        correlation_id=st.one_of(st.none(), ids),
        tags=tags,
        schema_version=st.one_of(st.just(1), numbers),
        subject=st.none(),
    ),
    # Sound ones, so that the other arguments are looked at, too.
    st.builds(partial(NewEvent, data=None), type=st.sampled_from(["Made", *INJECTIONS[:4]]), id=st.uuids(version=4)),
)
batches = st.one_of(st.lists(new_events, max_size=3), objects)
name_tuples = st.one_of(st.just(()), st.lists(names, max_size=2).map(tuple), objects)
filters = st.one_of(
    st.builds(
        Filter,
        types=name_tuples,
        categories=name_tuples,
        stream_prefix=st.one_of(st.none(), names),
        streams=name_tuples,
        tags=name_tuples,
        since=times,
        until=times,
    ),
    st.just(Filter()),
    objects,
)
conditions = st.one_of(st.none(), st.none(), st.builds(AppendCondition, where=filters, after=numbers), objects)
snapshots = st.one_of(
    st.builds(
        Snapshot,
        source=names,
        version=numbers,
        type=names,
        data=payloads,
        metadata=st.one_of(st.none(), payloads),
        created_at=times,
    ),
    objects,
)
stream_appends = st.builds(StreamAppend, stream=names, events=batches, expected_version=expected)
connections = st.one_of(*[st.just({})] * 15, objects.filter(lambda value: value is not None).map(lambda o: {"conn": o}))


@dataclass(frozen=True)
class Attempt:
    """One call, given a store."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    async def make(self, store: Any) -> Any:
        """Make the call; what iterates is asked for its first element."""
        call: Callable[..., Any] = getattr(store, self.name)
        answer = call(*self.arguments, **self.options)
        if self.name in ("stream", "stream_all"):
            return [event async for event in answer][:1]
        if self.name == "subscribe":
            async with answer:
                return None
        awaitable: Awaitable[Any] = answer
        return await awaitable


def attempt(
    name: str, *arguments: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]
) -> st.SearchStrategy[Attempt]:
    """Generate a call: each option is there or not."""
    without = {"stream", "stream_all", "subscribe", "position_at", "wait_for", "import_events", "append_at_commit"}
    conn = st.just({}) if name in without else connections
    chosen = st.tuples(st.fixed_dictionaries({}, optional=options), conn).map(lambda both: both[0] | both[1])
    return st.builds(Attempt, st.just(name), st.tuples(*arguments), chosen)


attempts = st.one_of(
    attempt("append", names, batches, expected, condition=conditions, created_at=times),
    attempt("append", st.just("mine"), batches, expected, created_at=times),
    attempt("append_to_many", st.one_of(st.lists(stream_appends, max_size=3), objects), created_at=times),
    attempt("link", names, st.one_of(st.lists(ids, max_size=3), objects), expected),
    attempt("read", names, start=numbers, limit=numbers),
    attempt("read_all", start=numbers, limit=numbers, where=filters),
    attempt("stream", names, start=numbers, page_size=numbers),
    attempt("stream_all", start=numbers, page_size=numbers, where=filters),
    attempt("read_page", names, numbers, numbers, where=filters),
    attempt("position_at", times),
    attempt("wait_for", names, numbers, st.one_of(st.just(0), objects)),
    attempt("stream_info", names),
    attempt("list_streams", search=names, sort=names, page=numbers, page_size=numbers, descending=objects),
    attempt("delete_stream", names, expected, hard=st.one_of(st.booleans(), objects)),
    attempt("undelete_stream", names),
    attempt("truncate_stream", names, numbers),
    attempt("record_snapshot", snapshots),
    attempt("read_snapshot", names, up_to=numbers),
    attempt("delete_snapshots", names, before=numbers),
    attempt("subscribe", names, selector=objects, mapper=objects, where=filters),
)

imported = st.one_of(st.builds(ImportedEvent, stream=names, event=new_events, created_at=times), new_events, objects)
durable_attempts = st.one_of(
    attempt("import_events", st.one_of(st.lists(imported, max_size=4), objects), batch_size=numbers),
    attempt("append_at_commit", names, batches, expected, created_at=times),
    attempt("append_at_commit", st.just("mine"), batches, expected, created_at=times),
)
"""Calls that only the store on Postgres has; the caller's connection comes with them."""

settings = st.dictionaries(
    st.sampled_from(
        [
            "url",
            "session_url",
            "schema",
            "pool_size",
            "timeout",
            "payload",
            "hard_deletes",
            "redis_url",
            "no_such_setting",
        ]
    ),
    st.one_of(
        names,
        numbers,
        st.sampled_from(
            [
                "postgresql://nowhere/x",
                "postgresql://[::1/x",
                "postgresql://h:port/x",
                "postgresql:///x?pool_size=many",
                "postgresql://h/x?timeout=nan",
                "postgresql://h/%ZZ?schema=%00",
                "http://h/x",
                "json",
                "true",
            ]
        ),
    ),
    max_size=4,
)
