"""Bad input is answered with a typed error and harms nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from headwater.storage.errors import EncodingFailed, InvalidArgument, WrongExpectedVersion
from headwater.storage.model import ALL, AppendCondition, Filter, NewEvent, StreamAppend
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events

SURROGATE = "\ud800"
BAD_NAMES: list[Any] = ["", "nul\0", SURROGATE, "x" * 513, "ü" * 257, None, 7, b"bytes", ["list"]]


@pytest.mark.parity("L41")
@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_a_name_that_cannot_be_stored_is_refused(store: PostgresEventStore, name: Any) -> None:
    for call in (
        store.append(name, events(1)),
        store.append("s", [NewEvent(name)]),
        store.append_to_many([StreamAppend(name, events(1))]),
        store.read(name),
        store.read_page(name, 0, 10),
        store.read_all(where=Filter(types=(name,))),
        *([] if name is None else [store.read_all(where=Filter(stream_prefix=name))]),
    ):
        with pytest.raises(InvalidArgument):
            await call
    assert await store.head() == 0


@pytest.mark.parametrize(
    "name",
    ["'; DROP TABLE headwater.events; --", '"', "\\", "%s", "%(stream)s", "{}", "$1", "a\nb", "x" * 512, "-", " "],
)
async def test_a_name_is_only_ever_a_name(store: PostgresEventStore, name: str) -> None:
    await store.append("bystander", events(1))
    await store.append(name, [NewEvent(name, {name: name}, metadata={name: name}, tags=(name,))], 0)
    [event] = await store.read(name)
    assert (event.stream, event.type, event.data, event.metadata, event.tags) == (
        name,
        name,
        {name: name},
        {name: name},
        (name,),
    )
    for where in (Filter(types=(name,)), Filter(streams=(name,)), Filter(stream_prefix=name), Filter(tags=(name,))):
        assert [e.position for e in await store.read_all(where=where)] == [2]
    assert len(await store.read("bystander")) == 1


@pytest.mark.parity("L41", "E1")
@pytest.mark.parametrize("expected", [-1, 2**63, 1.0, "any", None, True, "no_stream"], ids=repr)
async def test_an_expected_version_that_is_none_is_refused(store: PostgresEventStore, expected: Any) -> None:
    with pytest.raises(InvalidArgument):
        await store.append("s", events(1), expected)


async def test_the_highest_version_is_only_wrong(store: PostgresEventStore) -> None:
    with pytest.raises(WrongExpectedVersion):
        await store.append("s", events(1), 2**63 - 1)


@pytest.mark.parity("L41")
@pytest.mark.parametrize(
    "bad",
    [
        [],
        None,
        7,
        "events",
        NewEvent("single"),
        [{"type": "dict"}],
        [NewEvent("T", id="not a uuid")],  # type: ignore[arg-type]
        [NewEvent("T", causation_id="x")],  # type: ignore[arg-type]
        [NewEvent("T", correlation_id=7)],  # type: ignore[arg-type]
        [NewEvent("T", schema_version=0)],
        [NewEvent("T", schema_version=32768)],
        [NewEvent("T", tags="word")],
        [NewEvent("T", tags=("",))],
        [NewEvent("T", tags=("good", cast("str", [])))],
        [NewEvent("T", tags=(SURROGATE,))],
        [NewEvent("T", tags=tuple(str(n) for n in range(101)))],
    ],
    ids=lambda bad: repr(bad)[:40],
)
async def test_events_that_cannot_be_stored_are_refused(store: PostgresEventStore, bad: Any) -> None:
    with pytest.raises(InvalidArgument):
        await store.append("s", bad)
    assert await store.head() == 0


@pytest.mark.parametrize("data", [..., {1, 2}, SURROGATE, {"k": SURROGATE}, 2**70, {7: "int key"}], ids=repr)
async def test_a_payload_that_is_no_json_is_refused(store: PostgresEventStore, data: Any) -> None:
    with pytest.raises(EncodingFailed) as caught:
        await store.append("s", [NewEvent("Odd", data)])
    assert caught.value.event_type == "Odd"
    with pytest.raises(EncodingFailed):
        await store.append("s", [NewEvent("Odd", metadata={"m": data})])


@pytest.mark.parametrize(
    "when",
    [datetime.fromisoformat("2013-01-01"), "2013-01-01", 7, None],
    ids=repr,
)
async def test_a_time_without_a_zone_is_refused(store: PostgresEventStore, when: Any) -> None:
    with pytest.raises(InvalidArgument):
        await store.position_at(when)
    wrong: Any = when or 0  # None would mean the server's clock
    with pytest.raises(InvalidArgument):
        await store.append("s", events(1), created_at=wrong)


@pytest.mark.parametrize("when", [datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)], ids=repr)
async def test_the_ends_of_time_are_times(store: PostgresEventStore, when: datetime) -> None:
    await store.append("s", events(1), created_at=when)
    assert (await store.read("s"))[0].created_at == when
    assert await store.position_at(when) == 0


@pytest.mark.parametrize("limit", [-1, 1.5, None, "10", 2**63, True], ids=repr)
async def test_a_limit_that_is_no_count_is_refused(store: PostgresEventStore, limit: Any) -> None:
    await store.append("s", events(1))
    for call in (store.read("s", limit=limit), store.read_all(limit=limit), store.read_page(ALL, 0, limit)):
        with pytest.raises(InvalidArgument):
            await call


@pytest.mark.parametrize("condition", [7, AppendCondition(Filter(), 0), AppendCondition(Filter(types=("T",)), -1)])
async def test_a_condition_that_says_nothing_is_refused(store: PostgresEventStore, condition: Any) -> None:
    with pytest.raises(InvalidArgument):
        await store.append("s", events(1), condition=condition)


@pytest.mark.parity("L41")
async def test_an_import_of_what_cannot_be_gone_through_is_refused(store: PostgresEventStore) -> None:
    for bad in (None, 7, object(), "events", ["event"], [None]):
        with pytest.raises(InvalidArgument):
            await store.import_events(bad)  # type: ignore[arg-type]
    assert await store.head() == 0
