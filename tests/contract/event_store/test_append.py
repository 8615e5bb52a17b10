"""Appending: expected versions, order, identity, and the caller's transaction."""

from __future__ import annotations

import asyncio
import enum
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from headwater.storage.errors import (
    DuplicateEvent,
    EncodingFailed,
    InvalidArgument,
    ReservedStream,
    StreamDeleted,
    StreamExists,
    StreamMissing,
    StreamNotFound,
    WrongExpectedVersion,
)
from headwater.storage.model import (
    ALL,
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    Expected,
    NewEvent,
    StreamAppend,
)
from headwater.storage.postgres import encoding
from headwater.storage.store import EventStore
from tests.contract.event_store.conftest import Transaction, undone
from tests.plugins.events import events

EXPECTATIONS: list[tuple[int, Expected, type[WrongExpectedVersion] | None]] = [
    (0, 0, None),
    (0, 1, WrongExpectedVersion),
    (0, ANY, None),
    (0, NO_STREAM, None),
    (0, STREAM_EXISTS, StreamMissing),
    (3, 0, WrongExpectedVersion),
    (3, 1, WrongExpectedVersion),
    (3, 2, WrongExpectedVersion),
    (3, 3, None),
    (3, 4, WrongExpectedVersion),
    (3, ANY, None),
    (3, NO_STREAM, StreamExists),
    (3, STREAM_EXISTS, None),
]
"""How many events there are, what is expected, and how the append is refused."""


@pytest.mark.parity("T007", "T009", "T011", "T014", "T015", "T040", "T041", "E1", "E2")
@pytest.mark.parity("T012", "T013", "T016", "T136", "T138", "T234")
async def test_an_expected_version_decides(store: EventStore) -> None:
    for stored, expected, outcome in EXPECTATIONS:
        stream, head = f"after-{stored}-{expected}", await store.head() + stored
        if stored:
            await store.append(stream, events(stored))
        if outcome is None:
            result = await store.append(stream, events(2), expected)
            assert result == AppendResult(stream, stored + 1, stored + 2, head + 1, head + 2)
        else:
            with pytest.raises(WrongExpectedVersion) as refused:
                await store.append(stream, events(2), expected)
            assert (type(refused.value), refused.value.expected) == (outcome, expected)
            assert refused.value.actual == (stored or None)
            assert await store.head() == head


@pytest.mark.parity("E1")
async def test_what_is_no_expected_version_is_refused(store: EventStore) -> None:
    for expected in (-1, "any", None, 1.0, True, 2**63):
        with pytest.raises(InvalidArgument):
            await store.append("s", events(1), expected)  # type: ignore[arg-type]


@pytest.mark.parity("T008", "T010", "E6")
async def test_concurrent_appends_to_any_version_all_succeed(store: EventStore) -> None:
    for stored in (0, 16):
        results = await asyncio.gather(*(store.append("s", events(1)) for _ in range(16)))
        assert sorted(result.last_version for result in results) == list(range(stored + 1, stored + 17))
        assert [event.version for event in await store.read("s")] == list(range(1, stored + 17))


@pytest.mark.parity("T017", "T139", "E3")
@pytest.mark.parametrize(("expected", "refusal"), [(NO_STREAM, StreamExists), (0, WrongExpectedVersion)])
async def test_one_of_many_concurrent_appends_with_the_same_expectation_succeeds(
    store: EventStore, expected: Expected, refusal: type[Exception]
) -> None:
    outcomes = await asyncio.gather(
        *(store.append("s", events(2), expected) for _ in range(16)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes].count(AppendResult) == 1
    assert [type(outcome) for outcome in outcomes].count(refusal) == 15
    assert len(await store.read("s")) == 2


@pytest.mark.parity("L38")
async def test_concurrent_appends_that_only_want_the_stream_to_exist_all_succeed(store: EventStore) -> None:
    await store.append("s", events(1))
    results = await asyncio.gather(*(store.append("s", events(1), STREAM_EXISTS) for _ in range(16)))
    assert sorted(result.last_version for result in results) == list(range(2, 18))


@pytest.mark.parity("T042")
async def test_the_store_wide_order_is_not_a_stream_to_append_to(store: EventStore) -> None:
    with pytest.raises(ReservedStream):
        await store.append(ALL, events(1))
    with pytest.raises(ReservedStream):
        await store.append_to_many([StreamAppend("s", events(1)), StreamAppend(ALL, events(1))])
    assert await store.head() == 0


@pytest.mark.parity("T043")
async def test_an_append_in_a_transaction_that_rolls_back_never_was(
    store: EventStore, transaction: Transaction
) -> None:
    async with undone(transaction) as conn:
        result = await store.append("s", events(3), conn=conn)
        assert result.last_position == 3
        assert len(await store.read("s", conn=conn)) == 3
        assert await store.read_all() == []
    with pytest.raises(StreamNotFound):
        await store.read("s")
    assert (await store.append("t", events(1))).first_position == 1


async def test_an_append_in_a_transaction_is_there_when_it_commits(store: EventStore, transaction: Transaction) -> None:
    async with transaction() as conn:
        await store.append("s", events(2), conn=conn)
        await store.append("t", events(1), 0, conn=conn)
        with pytest.raises(WrongExpectedVersion):
            await store.append("t", events(1), 0, conn=conn)
    assert [(event.stream, event.position) for event in await store.read_all()] == [("s", 1), ("s", 2), ("t", 3)]


@pytest.mark.parity("T039", "T048", "T054", "T162", "T163", "T164")
async def test_what_is_written_is_what_is_read(store: EventStore) -> None:
    full = NewEvent(
        "Renamed",
        {"from": "Ålesund", "to": "東京 🌊", "nested": [1, 2.5, None, True]},
        metadata={"user": "å"},
        causation_id=uuid.uuid4(),
        correlation_id=uuid.uuid4(),
        tags=("city:1", 'comma,quote"back\\slash', "city:1"),
        schema_version=7,
    )
    bare = NewEvent("Bare")
    before = datetime.now(UTC) - timedelta(minutes=1)
    await store.append("s", [full, bare])
    first, second = await store.read("s")
    assert (first.id, first.type, first.data, first.metadata) == (full.id, full.type, full.data, full.metadata)
    assert (first.causation_id, first.correlation_id) == (full.causation_id, full.correlation_id)
    assert (set(first.tags), len(first.tags), first.schema_version) == (set(full.tags), 2, 7)
    assert (second.data, second.metadata, second.causation_id, second.correlation_id) == (None, None, None, None)
    assert (second.tags, second.schema_version, second.number, second.version, second.position) == ((), 1, 2, 2, 2)
    assert before < first.created_at <= second.created_at


@pytest.mark.parity("T134", "T135", "T258", "T168")
async def test_versions_count_in_the_stream_and_positions_in_the_store(store: EventStore) -> None:
    for stream in ("a", "b", "a", "b"):
        await store.append(stream, events(2))
    found = [(event.position, event.stream, event.version) for event in await store.read_all()]
    assert found == list(zip(range(1, 9), "aabbaabb", [1, 2, 1, 2, 3, 4, 3, 4], strict=True))


@pytest.mark.parity("L34")
async def test_the_same_append_again_returns_the_first_result(store: EventStore) -> None:
    for expected in (0, ANY, NO_STREAM):
        stream, batch = f"expecting-{expected}", events(3)
        first = await store.append(stream, batch, expected)
        await store.append(stream, events(2))
        head = await store.head()
        again = await store.append(stream, batch, expected)
        assert (first.repeated, again) == (False, first._replace(repeated=True))
        assert await store.head() == head


@pytest.mark.parity("T140", "T141", "T142", "T152")
async def test_a_stored_id_in_another_place_is_a_duplicate(store: EventStore) -> None:
    one, two, three = events(3)
    await store.append("s", [one, two])
    for stream, batch in (
        ("other", [one]),
        ("s", [two, one]),
        ("s", [one, three]),
        ("s", [three, two]),
        ("s", [one, two, three]),
    ):
        with pytest.raises(DuplicateEvent):
            await store.append(stream, batch)
    with pytest.raises(DuplicateEvent):
        await store.append("s", [three, three])
    assert await store.head() == 2


@pytest.mark.parity("L34")
async def test_several_streams_are_appended_to_whole_or_not_at_all(store: EventStore) -> None:
    await store.append("a", events(1))
    results = await store.append_to_many([StreamAppend("b", events(2), NO_STREAM), StreamAppend("a", events(1), 1)])
    assert results == [AppendResult("b", 1, 2, 2, 3), AppendResult("a", 2, 2, 4, 4)]
    with pytest.raises(WrongExpectedVersion) as refused:
        await store.append_to_many([StreamAppend("c", events(1)), StreamAppend("a", events(1), 1)])
    assert (refused.value.stream, refused.value.actual) == ("a", 2)
    assert await store.head() == 4
    with pytest.raises(InvalidArgument):
        await store.append_to_many([StreamAppend("c", events(1)), StreamAppend("c", events(1))])
    with pytest.raises(InvalidArgument):
        await store.append_to_many([])


async def test_an_append_to_several_streams_can_be_sent_again(store: EventStore) -> None:
    appends = [StreamAppend("a", events(2), 0), StreamAppend("b", events(1), 0)]
    first = await store.append_to_many(appends)
    again = await store.append_to_many(appends)
    assert [(r.first_position, r.last_position) for r in first] == [(r.first_position, r.last_position) for r in again]
    assert all(result.repeated for result in again)


@pytest.mark.parity("L19")
async def test_appends_to_the_same_streams_in_any_order_never_deadlock(store: EventStore) -> None:
    names = ["a", "b", "c", "d"]
    orders = [names[turn:] + names[:turn] for turn in range(4)] * 5
    await asyncio.gather(*(store.append_to_many([StreamAppend(name, events(1)) for name in order]) for order in orders))
    for name in names:
        assert [event.version for event in await store.read(name)] == list(range(1, 21))


@pytest.mark.parity("T266")
async def test_a_deleted_stream_takes_no_event_whatever_is_expected(store: EventStore) -> None:
    await store.append("s", events(1))
    await store.delete_stream("s")
    for expected in (ANY, NO_STREAM, STREAM_EXISTS, 0, 1):
        with pytest.raises(StreamDeleted):
            await store.append("s", events(1), expected)


@pytest.mark.parity("L41")
async def test_an_append_of_nothing_is_refused(store: EventStore) -> None:
    for nothing in ([], (), None, "events", [None], [{"type": "A"}], NewEvent("A")):
        with pytest.raises(InvalidArgument):
            await store.append("s", nothing)  # type: ignore[arg-type]
    assert await store.head() == 0


@pytest.mark.parity("T055", "T056", "T057", "T058")
async def test_an_import_brings_its_own_time(store: EventStore) -> None:
    then = datetime(2013, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)
    for new, old, expecting in (("new", "old", (0, 1)), ("new-any", "old-any", (ANY, ANY))):
        await store.append(new, events(2), expecting[0], created_at=then)
        assert [event.created_at for event in await store.read(new)] == [then, then]
        assert (await store.stream_info(new)).created_at == then

        await store.append(old, events(1))
        made = (await store.stream_info(old)).created_at
        await store.append(old, events(1), expecting[1], created_at=then)
        assert (await store.read(old))[1].created_at == then
        assert (await store.stream_info(old)).created_at == made


@pytest.mark.parity("L43", "T233")
async def test_times_never_fall_as_positions_rise(store: EventStore) -> None:
    await asyncio.gather(*(store.append(f"s-{number}", events(3)) for number in range(10)))
    times = [event.created_at for event in await store.read_all()]
    assert times == sorted(times)


async def test_a_time_that_cannot_be_stored_is_refused(store: EventStore) -> None:
    for when in (datetime(2020, 1, 1), datetime.min.replace(tzinfo=UTC), "2020-01-01"):  # noqa: DTZ001
        with pytest.raises(InvalidArgument):
            await store.append("s", events(1), created_at=when)  # type: ignore[arg-type]


@pytest.mark.parity("E4", "T018")
async def test_a_large_append_is_one_run_of_positions(store: EventStore) -> None:
    result = await store.append("s", events(8001))
    assert (result.last_version, result.last_position) == (8001, 8001)
    numbers = [event.position async for event in store.stream_all(page_size=3000)]
    assert numbers == list(range(1, 8002))
    with pytest.raises(WrongExpectedVersion):
        await store.append("s", events(2500), 1)
    assert await store.head() == 8001
    stored = await store.read("s", start=8001)
    with pytest.raises(DuplicateEvent):
        await store.append("t", [*events(2500), NewEvent("Again", id=stored[0].id)])
    assert await store.head() == 8001


async def test_more_than_the_server_takes_at_once_is_refused_and_nothing_is_lost(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_APPEND_BYTES", 100)
    large = [NewEvent("Noted", {"note": "x" * 60}) for _ in range(2)]
    with pytest.raises(InvalidArgument, match="events: must not hold more than 100 bytes"):
        await store.append("order-1", large)
    with pytest.raises(InvalidArgument, match="several calls"):
        await store.append_to_many([StreamAppend(f"order-{n}", [event], ANY) for n, event in enumerate(large)])
    for event in large:
        await store.append("order-1", [event])
    assert [event.data["note"] for event in await store.read("order-1")] == ["x" * 60] * 2


class Odds(enum.Enum):
    """An enumeration of a number that JSON has no word for."""

    UNKNOWN = float("nan")


@dataclass
class Measured:
    """A payload with attributes in a dictionary."""

    value: object


@dataclass(slots=True)
class Slotted:
    """A payload without one."""

    value: object


class Modelled(BaseModel):
    """A pydantic model."""

    value: float | None
    inner: Any = None


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "payload",
    [
        NAN,
        INFINITY,
        {"a": NAN, "b": 1},
        {"a": [None, {"b": (1.5, -INFINITY)}]},
        Odds.UNKNOWN,
        {"odds": [Odds.UNKNOWN]},
        Measured(NAN),
        Slotted([INFINITY]),
        Modelled(value=NAN),
        Measured([Slotted(Modelled(value=1, inner=[Measured(None)])), Slotted({"a": Modelled(value=NAN)})]),
    ],
    ids=lambda payload: repr(payload)[:40],
)
async def test_a_number_that_json_has_no_word_for_is_refused(store: EventStore, payload: object) -> None:
    for bad in (NewEvent("Odd", payload), NewEvent("Odd", metadata={"inside": payload})):
        with pytest.raises(EncodingFailed, match="float"):
            await store.append("s", [bad])
        with pytest.raises(EncodingFailed, match="float"):
            await store.append("s", [NewEvent("T"), bad])
        with pytest.raises(EncodingFailed, match="float"):
            await store.append_to_many([StreamAppend("s", [bad]), StreamAppend("other", [NewEvent("T")])])
    assert await store.head() == 0


@pytest.mark.parametrize(
    "payload", [{"a": [None, NAN]}, {"a": [None, object()]}, {"a": {1, 2}}], ids=["nan", "object", "set"]
)
async def test_of_many_events_that_which_cannot_be_stored_is_named(store: EventStore, payload: object) -> None:
    null, fine = NewEvent("Null", {"a": None, "b": uuid.UUID(int=1)}), NewEvent("Fine", {"a": 1.5, "b": -1})
    with pytest.raises(EncodingFailed) as raised:
        await store.append("s", [fine, null, NewEvent("Odd", payload), NewEvent("Fine")])
    assert raised.value.event_type == "Odd"
    assert await store.head() == 0


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        ({"a": None, "b": [1e300, "NaN", "null"]}, {"a": None, "b": [1e300, "NaN", "null"]}),
        (Measured([None, Slotted(uuid.UUID(int=1))]), {"value": [None, {"value": str(uuid.UUID(int=1))}]}),
        (Modelled(value=None, inner=datetime(2024, 1, 1)), {"value": None, "inner": "2024-01-01T00:00:00"}),  # noqa: DTZ001
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_null_is_stored_as_it_is_given(store: EventStore, payload: object, stored: object) -> None:
    await store.append("s", [NewEvent("T", payload, metadata={"inside": payload})])
    [event] = await store.read("s")
    assert (event.data, event.metadata) == (stored, {"inside": stored})
