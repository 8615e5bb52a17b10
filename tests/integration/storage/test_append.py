"""Appending on Postgres: expected versions, order, repetition, and each caller's own outcome in shared calls."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from headwater.storage.errors import (
    ConditionFailed,
    DuplicateEvent,
    InvalidArgument,
    ReservedStream,
    SchemaMissing,
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
    AppendCondition,
    Expected,
    Filter,
    NewEvent,
    StreamAppend,
)
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events


async def assert_gapless(store: PostgresEventStore) -> None:
    """Positions are contiguous, versions are contiguous in each stream, times never fall."""
    everything = [event async for event in store.stream_all()]
    assert [event.position for event in everything] == list(range(1, await store.head() + 1))
    versions: Counter[str] = Counter()
    for event in everything:
        versions[event.stream] += 1
        assert event.version == versions[event.stream]
    assert [event.created_at for event in everything] == sorted(event.created_at for event in everything)


@pytest.mark.parity("T007", "T009", "T011", "T014", "T015", "T040", "T041", "T130", "T131", "T132", "T133", "T232")
@pytest.mark.parametrize("expected", [3, ANY, STREAM_EXISTS])
async def test_events_go_to_the_end_of_their_stream(store: PostgresEventStore, expected: Expected) -> None:
    first = await store.append("order-1", events(3), NO_STREAM)
    second = await store.append("order-1", events(1), expected)
    assert (first.first_version, first.last_version, first.first_position, first.last_position) == (1, 3, 1, 3)
    assert (second.first_version, second.last_version, second.first_position, second.last_position) == (4, 4, 4, 4)
    assert [event.version for event in await store.read("order-1")] == [1, 2, 3, 4]


@pytest.mark.parity("T134", "T135", "T168", "T258")
async def test_streams_count_for_themselves_within_one_order(store: PostgresEventStore) -> None:
    for _ in range(2):
        for stream in ("a", "b"):
            await store.append(stream, events(2))
    assert [(e.position, e.stream, e.version) for e in await store.read_all()] == [
        (1, "a", 1),
        (2, "a", 2),
        (3, "b", 1),
        (4, "b", 2),
        (5, "a", 3),
        (6, "a", 4),
        (7, "b", 3),
        (8, "b", 4),
    ]


@pytest.mark.parity("T012", "T013", "T016", "T136", "T138", "T234", "E2")
@pytest.mark.parametrize(
    ("stream", "expected", "error"),
    [
        ("there", NO_STREAM, StreamExists),
        ("missing", STREAM_EXISTS, StreamMissing),
        ("there", 0, WrongExpectedVersion),
        ("there", 1, WrongExpectedVersion),
        ("there", 2, WrongExpectedVersion),
        ("there", 4, WrongExpectedVersion),
        ("missing", 1, WrongExpectedVersion),
    ],
)
async def test_an_expectation_that_does_not_hold_writes_nothing(
    store: PostgresEventStore, stream: str, expected: Expected, error: type[WrongExpectedVersion]
) -> None:
    await store.append("there", events(3))
    with pytest.raises(error) as caught:
        await store.append(stream, events(1), expected)
    assert (caught.value.stream, caught.value.expected) == (stream, expected)
    assert caught.value.actual == (3 if stream == "there" else None)
    assert await store.head() == 3
    assert (await store.append("there", events(1))).first_position == 4


@pytest.mark.parity("T008", "T010", "L38")
@pytest.mark.parametrize("expected", [ANY, STREAM_EXISTS])
async def test_appends_without_a_version_never_conflict(store: PostgresEventStore, expected: Expected) -> None:
    if expected is STREAM_EXISTS:
        await store.append("busy", events(1))
    # Two programs: what one of them sends together cannot conflict by itself.
    async with await PostgresEventStore.open(store.options.url) as other:
        results = await asyncio.gather(
            *[s.append("busy", events(2), expected) for _ in range(30) for s in (store, other)]
        )
    assert len({result.first_version for result in results}) == 60
    await assert_gapless(store)


@pytest.mark.parity("T017", "T139", "E3")
@pytest.mark.parametrize(("expected", "error"), [(0, WrongExpectedVersion), (NO_STREAM, StreamExists)])
async def test_of_many_appends_at_one_version_exactly_one_wins(
    store: PostgresEventStore, expected: Expected, error: type[Exception]
) -> None:
    outcomes = await asyncio.gather(
        *[store.append("contended", events(10), expected) for _ in range(16)], return_exceptions=True
    )
    assert Counter(type(outcome) for outcome in outcomes)[error] == 15
    assert len(await store.read("contended")) == 10
    await assert_gapless(store)


@pytest.mark.parity("T140", "L34")
@pytest.mark.parametrize("expected", [0, ANY, NO_STREAM])
async def test_the_same_append_again_returns_the_first_result(store: PostgresEventStore, expected: Expected) -> None:
    new = events(3)
    first = await store.append("order-1", new, expected)
    await store.append("order-1", events(2))
    again = await store.append("order-1", new, expected)
    assert again.repeated
    assert not first.repeated
    assert (again.first_version, again.last_position) == (first.first_version, first.last_position)
    assert await store.head() == 5


@pytest.mark.parity("T141", "T142", "E17")
@pytest.mark.parametrize("place", ["another stream", "another version", "another order", "a part", "more"])
async def test_a_stored_event_in_another_place_is_a_duplicate(store: PostgresEventStore, place: str) -> None:
    new = events(3)
    await store.append("order-1", new)
    stream, sent = "order-1", new
    expected: Expected = ANY
    match place:
        case "another stream":
            stream = "order-2"
        case "another version":
            expected = 3
        case "another order":
            sent = new[::-1]
        case "a part":
            sent = [*events(1), new[1]]
        case "more":
            sent = [*new, *events(1)]
    with pytest.raises(DuplicateEvent) as caught:
        await store.append(stream, sent, expected)
    assert caught.value.event_id in {event.id for event in new}
    assert await store.head() == 3


async def test_one_id_twice_in_a_call_is_refused(store: PostgresEventStore) -> None:
    event = NewEvent("Twice")
    with pytest.raises(DuplicateEvent) as caught:
        await store.append("s", [event, event])
    assert caught.value.event_id == event.id
    with pytest.raises(DuplicateEvent):
        await store.append_to_many([StreamAppend("a", [event]), StreamAppend("b", [event])])
    assert await store.head() == 0


async def test_neighbours_in_one_call_keep_their_own_outcomes(store: PostgresEventStore) -> None:
    stored = events(2)
    await store.append("old", stored)
    common = NewEvent("Common")
    outcomes = await asyncio.gather(
        *[store.append(f"busy-{n}", events(1)) for n in range(5)],
        store.append("old", events(1), 7),
        store.append("other", stored),
        store.append("old", stored),
        store.append("fine", events(3)),
        store.append("first", [common]),
        store.append("second", [common]),
        store.append("old", events(1), 2),
        store.append_to_many([StreamAppend("left", events(1)), StreamAppend("old", events(1), NO_STREAM)]),
        store.append_to_many([StreamAppend("right", events(1)), StreamAppend("fine", events(1), 3)]),
        return_exceptions=True,
    )
    kinds = [type(outcome).__name__ for outcome in outcomes[5:]]
    assert kinds == [
        "WrongExpectedVersion",
        "DuplicateEvent",
        "AppendResult",
        "AppendResult",
        "AppendResult",
        "DuplicateEvent",
        "AppendResult",
        "StreamExists",
        "list",
    ]
    with pytest.raises(StreamNotFound):
        await store.read("left")
    await assert_gapless(store)


async def test_lone_events_in_one_call_keep_their_own_outcomes(store: PostgresEventStore) -> None:
    await store.append("old", events(2))
    new: tuple[Expected, ...] = (ANY, NO_STREAM, 0)
    tagged = NewEvent("Tagged", tags=("a", "b", "a"))
    outcomes = await asyncio.gather(
        store.append("first", events(1)),  # goes alone; the others share calls
        *[store.append(f"new-{n}", events(1), expected) for n, expected in enumerate(new)],
        store.append("tagged", [tagged]),
        store.append("old", events(1), 2),
    )
    assert [result.last_position for result in outcomes] == list(range(3, 9))
    assert [result.last_version for result in outcomes] == [1, 1, 1, 1, 1, 3]
    assert [event.id for event in await store.read_all(where=Filter(tags=("a", "b")))] == [tagged.id]
    refused = await asyncio.gather(
        store.append("first", events(1)),
        store.append("new-0", events(1), 1),
        store.append("new-1", events(1), 7),
        store.append("none", events(1), STREAM_EXISTS),
        store.append("old", events(1), STREAM_EXISTS),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in refused] == [
        *("AppendResult", "AppendResult", "WrongExpectedVersion", "StreamMissing", "AppendResult")
    ]
    await assert_gapless(store)


@pytest.mark.parity("L19")
async def test_appends_to_several_streams_in_any_order_never_deadlock(
    store: PostgresEventStore, database_url: str
) -> None:
    streams = ["a", "b", "c"]

    async def run(store: PostgresEventStore, order: list[str], count: int) -> None:
        for _ in range(count):
            await store.append_to_many([StreamAppend(stream, events(1)) for stream in order])

    async with await PostgresEventStore.open(database_url) as other:
        await asyncio.gather(*[run(s, o, 15) for s in (store, other) for o in (streams, streams[::-1], streams[1:])])
    assert await store.head() == 2 * 15 * 8
    await assert_gapless(store)


async def test_several_streams_are_written_together_or_not_at_all(store: PostgresEventStore) -> None:
    await store.append("b", events(1))
    first, second = await store.append_to_many(
        [StreamAppend("a", events(2), NO_STREAM), StreamAppend("b", events(1), 1)]
    )
    assert (first.first_position, first.last_position, second.first_position) == (2, 3, 4)
    with pytest.raises(WrongExpectedVersion) as caught:
        await store.append_to_many([StreamAppend("c", events(2)), StreamAppend("b", events(1), 1)])
    assert caught.value.stream == "b"
    assert await store.head() == 4
    with pytest.raises(InvalidArgument):
        await store.append_to_many([StreamAppend("a", events(1)), StreamAppend("a", events(1))])
    with pytest.raises(InvalidArgument):
        await store.append_to_many([])


async def test_a_condition_lets_only_one_of_two_decisions_through(store: PostgresEventStore) -> None:
    seat = AppendCondition(Filter(types=("SeatTaken",), tags=("seat:12A", "flight:7")), after=await store.head())
    taken = [NewEvent("SeatTaken", tags=("flight:7", "seat:12A"))]
    await store.append("seats-1", [NewEvent("SeatTaken", tags=("seat:12A", "flight:8")), *events(1)], condition=seat)
    outcomes = await asyncio.gather(
        *[
            store.append(f"booking-{n}", [NewEvent(e.type, tags=e.tags) for e in taken], condition=seat)
            for n in range(5)
        ],
        return_exceptions=True,
    )
    assert Counter(type(outcome) for outcome in outcomes)[ConditionFailed] == 4
    [failed, *_] = [outcome for outcome in outcomes if isinstance(outcome, ConditionFailed)]
    assert (failed.after, failed.position) == (0, 3)


async def test_a_conditional_append_sent_again_is_repeated_not_refused(store: PostgresEventStore) -> None:
    condition = AppendCondition(Filter(types=("OrderPlaced",)), after=0)
    new = events(1)
    first = await store.append("s", new, condition=condition)
    again = await store.append("s", new, condition=condition)
    assert (again.repeated, again.first_position) == (True, first.first_position)
    with pytest.raises(ConditionFailed):
        await store.append("s", events(1), condition=condition)


@pytest.mark.parametrize("where", [Filter(streams=("s",)), Filter(categories=("s",)), Filter(stream_prefix="s")])
async def test_a_condition_may_name_streams(store: PostgresEventStore, where: Filter) -> None:
    await store.append("t", events(1))
    await store.append("s", events(1), condition=AppendCondition(where, after=0))
    with pytest.raises(ConditionFailed):
        await store.append("t", events(1), condition=AppendCondition(where, after=0))
    await store.append("t", events(1), condition=AppendCondition(where, after=2))


@pytest.mark.parity("T055", "T057")
@pytest.mark.parametrize("expected", [NO_STREAM, ANY])
async def test_a_time_of_its_own_is_the_events_and_a_new_streams(store: PostgresEventStore, expected: Expected) -> None:
    when = datetime(2013, 7, 1, 12, tzinfo=UTC)
    await store.append("flight", events(2), expected, created_at=when)
    assert [event.created_at for event in await store.read("flight")] == [when, when]
    assert (await store.stream_info("flight")).created_at == when


@pytest.mark.parity("T056", "T058")
@pytest.mark.parametrize("expected", [1, ANY])
async def test_a_time_of_its_own_leaves_an_old_streams_time(store: PostgresEventStore, expected: Expected) -> None:
    await store.append("flight", events(1))
    before = (await store.stream_info("flight")).created_at
    when = datetime(2013, 7, 1, 12, tzinfo=UTC)
    await store.append("flight", events(1), expected, created_at=when)
    assert (await store.stream_info("flight")).created_at == before
    assert (await store.read("flight"))[-1].created_at == when


@pytest.mark.parity("T233", "L43")
async def test_times_come_from_the_server_and_follow_the_order(store: PostgresEventStore) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    await asyncio.gather(*[store.append(f"s-{n}", events(2)) for n in range(40)])
    await store.append("future", events(1), created_at=datetime.now(UTC) + timedelta(days=400))
    await store.append("now", events(1))
    last = (await store.read("now"))[0]
    assert before < last.created_at < datetime.now(UTC) + timedelta(minutes=5)
    assert last.created_at.utcoffset() == timedelta(0)


async def test_a_position_is_found_by_its_time(store: PostgresEventStore) -> None:
    times = [datetime(2013, 1, day, tzinfo=UTC) for day in (1, 2, 2, 5)]
    for number, when in enumerate(times):
        await store.append(f"s-{number}", events(2), created_at=when)
    at = [await store.position_at(datetime(2013, 1, day, tzinfo=UTC)) for day in (1, 2, 3, 5, 6)]
    assert at == [0, 2, 6, 6, 8]
    # Out of order: the first event at or after the time is found by looking at all of them.
    await store.append("late", events(1), created_at=datetime(2012, 1, 1, tzinfo=UTC))
    assert await store.position_at(datetime(2013, 1, 5, tzinfo=UTC)) == 6
    assert await store.position_at(datetime(2011, 1, 1, tzinfo=UTC)) == 0


@pytest.mark.parity("T039", "T048", "T054", "T162", "T163", "T164")
async def test_every_field_comes_back_as_it_was_given(store: PostgresEventStore) -> None:
    full = NewEvent(
        "Grüße",
        {"text": "naïve ☃ 𝄞", "nested": [1, None, 2.5, {"deep": True}]},
        metadata={"user": "Zoë"},
        causation_id=uuid.uuid4(),
        correlation_id=uuid.uuid4(),
        tags=('say "hi"', "back\\slash", "comma,brace{}", "NULL", "ünï"),
        schema_version=7,
    )
    bare = NewEvent("Bare", id=uuid.uuid4())
    await store.append("straße,1", [full, bare])
    got, got_bare = await store.read("straße,1")
    for field in ("id", "type", "data", "metadata", "causation_id", "correlation_id", "schema_version"):
        assert getattr(got, field) == getattr(full, field)
    assert got.tags == full.tags
    assert (got.position, got.stream, got.version, got.number) == (1, "straße,1", 1, 1)
    assert (got_bare.id, got_bare.data, got_bare.metadata) == (bare.id, None, None)
    assert (got_bare.causation_id, got_bare.correlation_id, got_bare.tags) == (None, None, ())
    assert got_bare.schema_version == 1


@pytest.mark.parity("T042")
async def test_nothing_is_appended_to_all(store: PostgresEventStore) -> None:
    with pytest.raises(ReservedStream):
        await store.append(ALL, events(1))


@pytest.mark.parity("T018", "E4")
@pytest.mark.slow
async def test_a_large_append_is_one_append(store: PostgresEventStore) -> None:
    result = await store.append("large", events(8001), NO_STREAM)
    assert (result.first_position, result.last_position, result.last_version) == (1, 8001, 8001)
    assert [event.position async for event in store.stream_all(page_size=500)] == list(range(1, 8002))
    with pytest.raises(WrongExpectedVersion):
        await store.append("large", events(4000), 8000)
    assert await store.head() == 8001


@pytest.mark.parity("T043")
async def test_an_append_in_a_callers_transaction_ends_with_it(store: PostgresEventStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        new = events(2)
        result = await store.append("mine", new, conn=conn)
        assert [event.id for event in await store.read("mine", conn=conn)] == [event.id for event in new]
        with pytest.raises(WrongExpectedVersion):
            await store.append("mine", events(1), 0, conn=conn)
        assert (await store.append("mine", new, conn=conn)).repeated
        with pytest.raises(DuplicateEvent):
            await store.append("other", new, conn=conn)
        await conn.rollback()
        with pytest.raises(StreamNotFound):
            await store.read("mine")
        again = await store.append("mine", new, conn=conn)
        await conn.commit()
    assert (again.repeated, again.first_position) == (False, result.first_position)
    assert len(await store.read("mine")) == 2


@pytest.mark.parity("T143")
async def test_a_schema_without_tables_is_named(empty_database_url: str) -> None:
    with pytest.raises(SchemaMissing) as caught:
        await PostgresEventStore.open(empty_database_url, schema="nowhere")
    assert "nowhere" in str(caught.value)


NOTIFYING = """
SELECT p.proname::text FROM pg_proc AS p
WHERE p.pronamespace = %s::regnamespace AND p.prosrc ~* 'notify'
    AND (p.proname ~ 'append' OR EXISTS (
        SELECT FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE t.tgfoid = p.oid AND c.relname IN ('events', 'streams', 'links', 'head')
    ))
"""
"""What notifies as part of an append."""


@pytest.mark.parity("L21")
async def test_the_longest_names_can_be_appended_under(database_url: str) -> None:
    stream, schema = "ü" * 256, "s" * 63
    async with await PostgresEventStore.open(database_url, schema=schema, migrate=True) as store:
        async with store.subscribe(stream) as batches:
            await store.append(stream, [NewEvent("T" * 512, tags=("t" * 512,))])
            assert [event.stream for event in await anext(batches)] == [stream]
        # Nothing is notified within the transaction: sessions that notify commit one after the other.
        async with store.connection() as conn:
            cursor = await conn.execute(NOTIFYING, [f'"{schema}"'])
            assert await cursor.fetchall() == []
