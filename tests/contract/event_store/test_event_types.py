"""Events as objects of classes, and old shapes lifted to the newest when they are looked at."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pydantic
import pytest

from headwater.storage.errors import ConfigurationError, EncodingFailed, InvalidArgument, UpcastingFailed
from headwater.storage.event_types import EventTypes
from headwater.storage.memory import MemoryEventStore
from headwater.storage.model import ALL, Filter, NewEvent, Snapshot
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.store import EventStore

types = EventTypes()


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@types.register
@dataclass(frozen=True)
class Line:
    article: str
    size: Size = Size.SMALL


@types.register(name="order-placed", version=3)
@dataclass(frozen=True)
class OrderPlaced:
    at: datetime
    lines: list[Line]
    currency: str
    notes: dict[str, str] = field(default_factory=dict)


@types.register
class Paid(pydantic.BaseModel):
    amount: int
    when: datetime


@types.upcaster("order-placed", 1)
def with_lines(data: dict[str, Any]) -> dict[str, Any]:
    data["lines"] = [{"article": article} for article in data.pop("articles")]
    return data


@types.upcaster("order-placed", 2)
def with_currency(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "currency": "EUR"}


@types.upcaster("OrderMade", 1, to_name="order-placed", to_version=1)
def renamed(data: dict[str, Any]) -> dict[str, Any]:
    return {"at": data["time"], "articles": [data["article"]]}


@types.upcaster("Broken", 1)
def broken(data: dict[str, Any]) -> dict[str, Any]:
    return {"total": data["no such field"]}


@types.upcaster("Gap", 1)
@types.upcaster("Gap", 3)
def same(data: dict[str, Any]) -> dict[str, Any]:
    return data


@dataclass
class Unregistered:
    n: int


NOW = datetime(2013, 7, 1, 12, tzinfo=UTC)
ORDER = OrderPlaced(NOW, [Line("book", Size.LARGE), Line("pen")], "EUR", {"1": "a"})


@pytest.fixture
async def typed(store_url: str | None) -> AsyncIterator[EventStore]:
    opened = (
        MemoryEventStore(types=types) if store_url is None else await PostgresEventStore.open(store_url, types=types)
    )
    async with opened:
        yield opened


@pytest.mark.parity("T240")
async def test_the_type_comes_from_the_class_of_the_payload_when_none_is_given(store: EventStore) -> None:
    await store.append("s", [NewEvent(data=Unregistered(1)), NewEvent(data=Paid(amount=2, when=NOW))])
    first, second = await store.read("s")
    assert (first.type, first.data, first.object) == ("Unregistered", {"n": 1}, {"n": 1})
    assert (second.type, second.data) == ("Paid", {"amount": 2, "when": "2013-07-01T12:00:00Z"})
    for payload in ({"n": 1}, None, "text", 7):
        with pytest.raises(InvalidArgument, match="type"):
            await store.append("s", [NewEvent(data=payload)])


@pytest.mark.parity("T240")
async def test_an_object_is_appended_under_its_types_name_and_comes_back(typed: EventStore) -> None:
    paid = Paid(amount=3, when=NOW)
    await typed.append("s", [NewEvent(data=ORDER), NewEvent("Paid", paid), NewEvent(data=Unregistered(1))])
    order, payment, other = await typed.read("s")
    assert (order.type, order.schema_version, order.object) == ("order-placed", 3, ORDER)
    assert order.data["lines"][0] == {"article": "book", "size": "large"}
    assert (payment.type, payment.object, payment.data["amount"]) == ("Paid", paid, 3)
    assert (other.type, other.object) == ("Unregistered", {"n": 1})
    await typed.append("plain", [NewEvent("Paid", {"amount": 1, "when": "2013-07-01T12:00:00Z"}), NewEvent("Else", 5)])
    assert [event.object for event in await typed.read("plain")] == [Paid(amount=1, when=NOW), 5]


async def test_an_object_that_contradicts_what_is_given_is_refused(typed: EventStore) -> None:
    for bad in (NewEvent("Paid", ORDER), NewEvent(data=ORDER, schema_version=2), NewEvent("", {"n": 1})):
        with pytest.raises(InvalidArgument):
            await typed.append("s", [bad])
    with pytest.raises(EncodingFailed):
        await typed.append("s", [NewEvent("T", object())])
    with pytest.raises(EncodingFailed, match="float"):
        await typed.append("s", [NewEvent("T", {"total": float("nan")})])
    for nothing in ([], [None], "", None, NewEvent("T")):
        with pytest.raises(InvalidArgument):
            await typed.append("s", nothing)  # type: ignore[arg-type]


OLD = [
    NewEvent("OrderMade", {"time": NOW, "article": "book"}),
    NewEvent("order-placed", {"at": NOW, "articles": ["book"]}),
    NewEvent("order-placed", {"at": NOW, "lines": [{"article": "book"}]}, schema_version=2),
]


@pytest.mark.parity("L35")
async def test_old_shapes_are_lifted_wherever_events_are_read(typed: EventStore) -> None:
    async with typed.subscribe(ALL, selector=lambda event: event.data["currency"] == "EUR") as batches:
        await typed.append("s", OLD)
        followed = list(await anext(batches))
    await typed.link("links", followed)
    for found in (
        followed,
        await typed.read("s"),
        await typed.read("links"),
        await typed.read_all(),
        list((await typed.read_page(ALL, 0, 10)).events),
        list((await typed.read_page("s", 0, 10)).events),
        [event async for event in typed.stream("s")],
        [pickle.loads(pickle.dumps(event)) for event in await typed.read("s")],
    ):
        assert [(event.type, event.schema_version) for event in found] == [("order-placed", 3)] * 3
        assert [event.object for event in found] == [OrderPlaced(NOW, [Line("book")], "EUR")] * 3
    assert len(await typed.read_all(where=Filter(types=("OrderMade",)))) == 1, "a filter means the type as stored"


@pytest.mark.parity("L35")
async def test_what_cannot_be_lifted_says_where_when_it_is_looked_at_and_harms_no_other(typed: EventStore) -> None:
    await typed.append("s", [NewEvent("Broken", {}), NewEvent("Gap", {}, schema_version=2), NewEvent("Gap", 1)])
    raising, missing, first = await typed.read("s")
    with pytest.raises(UpcastingFailed, match="no such field") as raised:
        _ = raising.data
    assert (raised.value.event_type, raised.value.version, raised.value.position) == ("Broken", 1, 1)
    with pytest.raises(UpcastingFailed, match="no upcaster") as lost:
        _ = missing.data
    assert (lost.value.event_type, lost.value.version, lost.value.position) == ("Gap", 2, 2)
    with pytest.raises(UpcastingFailed):
        _ = first.object
    assert pickle.loads(pickle.dumps(lost.value)).fields == lost.value.fields


async def test_what_a_class_refuses_is_an_encoding_error(typed: EventStore) -> None:
    await typed.append("s", [NewEvent("Paid", {"amount": "much"}), NewEvent("Line", {"size": "huge"})])
    for event in await typed.read("s"):
        assert event.data
        with pytest.raises(EncodingFailed, match=event.type):
            _ = event.object


async def test_snapshots_are_lifted_and_may_be_objects(typed: EventStore) -> None:
    await typed.record_snapshot(Snapshot("a", 1, "order-placed", {"at": "2013-07-01T12:00:00Z", "articles": ["book"]}))
    await typed.record_snapshot(Snapshot("b", 1, "order-placed", ORDER))
    old, new = await typed.read_snapshot("a"), await typed.read_snapshot("b")
    assert (old.type, old.schema_version, new.schema_version) == ("order-placed", 3, 3)
    assert types.load(old.type, old.data) == OrderPlaced(NOW, [Line("book")], "EUR")
    assert types.load(new.type, new.data) == ORDER
    with pytest.raises(InvalidArgument):
        await typed.record_snapshot(Snapshot("a", 2, "another", ORDER))


def test_registering_what_can_never_work_is_refused() -> None:
    own = EventTypes()
    own.register(Line)
    with pytest.raises(ConfigurationError, match="already"):
        own.register(Line, name="again")
    with pytest.raises(ConfigurationError, match="already"):
        own.register(Unregistered, name="Line")
    with pytest.raises(ConfigurationError, match="no class"):
        own.register("Line")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no dataclass"):
        own.register(int)
    with pytest.raises(InvalidArgument):
        own.register(Unregistered, version=0)
    own.upcaster("A", 1, to_name="B", to_version=1)(same)
    own.upcaster("B", 1, to_name="C", to_version=1)(same)
    with pytest.raises(ConfigurationError, match="already"):
        own.upcaster("A", 1)
    with pytest.raises(ConfigurationError, match="leads from"):
        own.upcaster("D", 2, to_version=2)
    with pytest.raises(UpcastingFailed, match="circle") as circle:
        own.upcaster("C", 1, to_name="A", to_version=1)
    assert (circle.value.event_type, circle.value.version, circle.value.position) == ("C", 1, None)
