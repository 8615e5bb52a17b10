"""Payloads under a key for each subject: read by whoever has the keys, and by nobody once a key is destroyed."""

from __future__ import annotations

import asyncio
import os
import pickle
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

import psycopg
import pytest

from headwater.storage.encryption.keys import StoredKey
from headwater.storage.encryption.options import Encryption
from headwater.storage.errors import (
    ConfigurationError,
    DuplicateEvent,
    EncodingFailed,
    InvalidArgument,
    KeyUnavailable,
    ReservedStream,
    SealBroken,
)
from headwater.storage.memory import MemoryEventStore
from headwater.storage.memory.keys import MemoryKeyStore
from headwater.storage.model import (
    ALL,
    ERASED,
    AppendCondition,
    Filter,
    NewEvent,
    RecordedEvent,
    Snapshot,
    StreamAppend,
)
from headwater.storage.payloads import Payloads
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.store import EventStore
from tests.contract.event_store.test_event_types import ORDER, types

SECRET = "Ada Lovelace 12 St James Square"
ADA = "customer-1815"

Open: TypeAlias = Callable[..., Awaitable[Any]]


@dataclass
class World:
    """Master keys that a test may change, and a clock that it moves."""

    masters: dict[str, bytes] = field(default_factory=lambda: {"first": os.urandom(32)})
    now: float = 0.0

    def encryption(self, **options: Any) -> Encryption:
        chosen: Any = {"master_keys": self.keys, "clock": lambda: self.now, "cache_time": timedelta(seconds=30)}
        return Encryption(**{**chosen, **options})

    def keys(self) -> Mapping[str, bytes]:
        return self.masters


@pytest.fixture
def world() -> World:
    return World()


every_column = pytest.mark.parametrize("url", ["memory", "json", "jsonb", "bytea"], indirect=True)


@pytest.fixture(params=["memory", "json"])
def url(request: pytest.FixtureRequest) -> str | None:
    """None for memory, or the URL of a database with the default column, or with another kind."""
    if request.param == "memory":
        return None
    name = "database_url" if request.param == "json" else "empty_database_url"
    return f"{request.getfixturevalue(name)}?payload={request.param}"


@pytest.fixture
async def open_store(url: str | None) -> AsyncIterator[Open]:
    """Opens the store, as often as there are programs; in memory they share what is stored and the keys."""
    async with AsyncExitStack() as stack:
        kept: list[MemoryEventStore] = []

        async def open_one(encryption: Encryption | None, **settings: Any) -> EventStore:
            if url is not None:
                return await stack.enter_async_context(
                    await PostgresEventStore.open(
                        url, encryption=encryption, migrate="payload=json&" not in f"{url}&", **settings
                    )
                )
            store = MemoryEventStore(encryption=encryption, **settings)
            if kept:
                store._state = kept[0]._state
                store.payloads = Payloads(kept[0].payloads._keys, encryption=encryption, types=settings.get("types"))
            kept.append(store)
            return await stack.enter_async_context(store)

        yield open_one


def everything(store: Any, url: str | None) -> bytes:
    """Return all that is stored, as bytes."""
    if url is None:
        state = store._state
        events = [tuple(event) for event in state.events.values()]
        return repr((events, state.snapshots, store.payloads._keys._keys)).encode()
    found = b""
    with psycopg.connect(url.partition("?")[0]) as conn:
        for table in ("events", "snapshots", "subject_keys", "event_tags", "streams"):
            for (row,) in conn.execute(f'SELECT t::text FROM "headwater"."{table}" AS t').fetchall():
                found += row.encode()
    return found


def hides(stored: bytes, secret: str = SECRET) -> bool:
    """Whether a secret is neither in the clear nor, as bytea columns show it, in hexadecimal."""
    return secret.encode() not in stored and secret.encode().hex().encode() not in stored


def registered(secret: str = SECRET, subject: str | None = ADA, **fields: Any) -> NewEvent:
    return NewEvent("Registered", {"name": secret}, subject=subject, **fields)


@pytest.mark.parity("L35")
@every_column
async def test_what_has_a_subject_is_stored_encrypted_and_read_in_the_clear(
    open_store: Open, world: World, url: str | None
) -> None:
    store = await open_store(world.encryption(metadata=True))
    await store.append("a", [registered(metadata={"by": SECRET}, tags=["new"]), registered("public", None)])
    await store.append_to_many([StreamAppend("b", [registered()]), StreamAppend("c", [registered(subject="bob")])])
    await store.record_snapshot(Snapshot("a", 2, "State", {"name": SECRET}, {"by": SECRET}, subject=ADA))
    assert hides(everything(store, url))
    assert not hides(everything(store, url), "public")
    assert [event.data["name"] for event in await store.read(ALL)] == [SECRET, "public", SECRET, SECRET]
    first, second, *_ = await store.read(ALL)
    assert (first.metadata, second.metadata, first.erased) == ({"by": SECRET}, None, False)
    saved = await store.read_snapshot("a")
    assert (saved.data, saved.metadata) == ({"name": SECRET}, {"by": SECRET})
    # Another program, which has to ask for the keys, sees the same; one without the encryption only the envelope.
    other = await open_store(world.encryption())
    assert [event.data["name"] for event in await other.read(ALL)] == [SECRET, "public", SECRET, SECRET]
    bare = await open_store(None)
    [stored, *_] = await bare.read("a")
    assert list(stored.data if url is None or "bytea" not in url else {"$sealed": 1}) == ["$sealed"]
    assert SECRET not in repr(stored.raw_data)


@pytest.mark.parity("L35")
@every_column
async def test_what_was_said_of_a_forgotten_subject_is_erased_everywhere_and_of_nobody_else(
    open_store: Open, world: World, url: str | None
) -> None:
    store = await open_store(world.encryption(metadata=True))
    async with store.subscribe(ALL) as batches:
        await store.append(
            "a", [registered(metadata={"by": SECRET}), registered("bob's", "bob"), registered("all", None)]
        )
        await store.link("links", await store.read("a"))
        await store.record_snapshot(Snapshot("a", 3, "State", {"name": SECRET}, subject=ADA))
        await store.record_snapshot(Snapshot("b", 1, "State", {"name": "bob's"}, subject="bob"))
        held = await store.read("a")
        assert await store.forget(ADA) is True
        assert await store.forget(ADA) is False
        followed = list(await anext(batches))
    for found in (
        held,
        followed,
        await store.read("a"),
        await store.read("links"),
        await store.read_all(where=Filter(types=("Registered",))),
        list((await store.read_page(ALL, 0, 10)).events),
        list((await store.read_page("links", 0, 10)).events),
        [event async for event in store.stream(ALL)],
        [pickle.loads(pickle.dumps(event)) for event in await store.read("a")],
    ):
        erased, kept, plain = found
        assert (erased.data, erased.metadata, erased.object, erased.erased) == (ERASED, ERASED, ERASED, True)
        assert (kept.data, kept.erased, plain.data) == ({"name": "bob's"}, False, {"name": "all"})
    assert (await store.read_snapshot("a")).data is ERASED
    assert (await store.read_snapshot("b")).data == {"name": "bob's"}
    stored = everything(store, url)
    assert hides(stored)
    assert ADA.encode() not in stored, "not even the name of the subject is kept"
    again = await open_store(world.encryption())
    assert [event.erased for event in await again.read("a")] == [True, False, False]


async def test_a_destroyed_key_stops_working_in_every_program_within_the_stated_time(
    open_store: Open, world: World
) -> None:
    store, other = await open_store(world.encryption()), await open_store(world.encryption())
    await store.append("a", [registered()])
    [held] = await other.read("a")
    await store.forget(ADA)
    world.now = 29.9
    assert (await other.read("a"))[0].data == {"name": SECRET}
    world.now = 30.0
    [seen_again] = await other.payloads.open([held])
    assert seen_again.data is ERASED
    assert held.data is ERASED, "what a program learns of a key holds for what it has read already"


async def test_a_subject_that_was_forgotten_gets_a_new_key(open_store: Open, world: World) -> None:
    store = await open_store(world.encryption())
    await store.append("a", [registered("before")])
    await store.forget(ADA)
    await store.append("a", [registered("after")])
    assert [event.data for event in await store.read("a")] == [ERASED, {"name": "after"}]


async def test_what_an_erased_payload_shows_can_be_chosen(open_store: Open, world: World) -> None:
    def anonymous(event: RecordedEvent | Snapshot) -> Any:
        return {"name": f"somebody of {event.type}"}

    store = await open_store(world.encryption(erased=anonymous))
    await store.append("a", [registered()])
    await store.forget(ADA)
    [event] = await store.read("a")
    assert (event.data, event.erased) == ({"name": "somebody of Registered"}, True)


async def test_the_subject_may_be_chosen_by_a_function(open_store: Open, world: World, url: str | None) -> None:
    def of_stream(stream: str, what: NewEvent | Snapshot) -> str | None:
        return stream if stream.startswith("customer-") and what.type != "Public" else None

    store = await open_store(world.encryption(subject=of_stream))
    await store.append("customer-1", [registered(subject=None), NewEvent("Public", "public")])
    await store.record_snapshot(Snapshot("customer-1", 2, "State", {"name": SECRET}))
    assert hides(everything(store, url))
    await store.forget("customer-1")
    assert [event.data for event in await store.read("customer-1")] == [ERASED, "public"]
    assert (await store.read_snapshot("customer-1")).data is ERASED


@pytest.mark.parity("L34")
async def test_the_same_events_again_return_the_first_result_although_they_encrypt_differently(
    open_store: Open, world: World
) -> None:
    store = await open_store(world.encryption())
    events = [registered(), registered("second", "bob")]
    first = await store.append("a", events, 0)
    for again in (await store.append("a", events, 0), await store.append("a", events)):
        assert again == first._replace(repeated=True)
    await store.forget(ADA)
    assert (await store.append("a", events, 0)).repeated
    with pytest.raises(DuplicateEvent):
        await store.append("b", events)
    assert [event.data for event in await store.read("a")] == [ERASED, {"name": "second"}]


async def test_filters_tags_and_conditions_work_on_encrypted_events(open_store: Open, world: World) -> None:
    store = await open_store(world.encryption())
    await store.append("a", [registered(tags=["vip"]), registered("other", "bob")])
    assert [event.data["name"] for event in await store.read_all(where=Filter(tags=("vip",)))] == [SECRET]
    assert len(await store.read_all(where=Filter(types=("Registered",)))) == 2
    condition = AppendCondition(Filter(tags=("vip",)), after=1)
    assert (await store.append("a", [registered()], condition=condition)).last_position == 3


async def test_the_wrong_master_key_is_a_typed_error_when_the_payload_is_looked_at(
    open_store: Open, world: World
) -> None:
    store = await open_store(world.encryption())
    await store.append("a", [registered(), registered("public", None)])
    for masters, says in (({"first": os.urandom(32)}, "not the one"), ({"second": os.urandom(32)}, "no master key")):
        wrong = World(masters)
        other = await open_store(wrong.encryption())
        sealed, plain = await other.read("a")
        assert plain.data == {"name": "public"}
        with pytest.raises(KeyUnavailable, match=says):
            _ = sealed.data
        with pytest.raises(KeyUnavailable, match=says):
            await other.append("a", [registered()])
        assert sealed.erased is False
    with pytest.raises(ConfigurationError):
        await open_store(World({}).encryption())


async def test_master_keys_are_rotated_without_touching_an_event(
    open_store: Open, world: World, url: str | None
) -> None:
    store = await open_store(world.encryption())
    await store.append("a", [registered(), registered("bob's", "bob"), registered("gone", "carol")])
    await store.forget("carol")
    old = world.masters["first"]
    world.masters = {"second": os.urandom(32), "first": old}
    await store.append("a", [registered("dora's", "dora")])
    before = [event.raw_data for event in await store.read("a")]
    assert await store.payloads.rewrap_keys() == 2
    assert await store.payloads.rewrap_keys() == 0
    del world.masters["first"]
    other = await open_store(world.encryption())
    assert [event.raw_data for event in await other.read("a")] == before
    assert [e.data if e.erased else e.data["name"] for e in await other.read("a")] == [
        SECRET,
        "bob's",
        ERASED,
        "dora's",
    ]
    stale = await open_store(World({"first": old}).encryption())
    with pytest.raises(KeyUnavailable):
        _ = (await stale.read("a"))[0].data


@every_column
async def test_a_ciphertext_opens_only_in_its_own_place(open_store: Open, world: World) -> None:
    store = await open_store(world.encryption(metadata=True))
    await store.append("a", [registered(metadata={"m": 1}), registered()])
    first, second = await store.read("a")
    raw = bytearray(first.raw_data)
    raw[-10] ^= 1
    moved = (
        first._replace(raw_data=second.raw_data),
        first._replace(stream="b"),
        first._replace(id=uuid.uuid4()),
        first._replace(raw_data=first.raw_metadata),
        first._replace(raw_data=bytes(raw)),
        first._replace(raw_data=b'{"$sealed":"?"}'),
    )
    for event in moved:
        with pytest.raises(SealBroken):
            _ = event.data
    assert first.data == {"name": SECRET}


async def test_a_key_that_was_lost_by_mistake_is_an_error_and_no_erasure(
    open_store: Open, world: World, url: str | None
) -> None:
    store = await open_store(world.encryption())
    await store.append("a", [registered()])
    if url is None:
        store.payloads._keys._keys.clear()
    else:
        with psycopg.connect(url.partition("?")[0]) as conn:
            conn.execute('DELETE FROM "headwater"."subject_keys"')
    other = await open_store(world.encryption())
    [event] = await other.read("a")
    with pytest.raises(KeyUnavailable, match="not in the key store"):
        _ = event.data


async def test_nothing_with_a_subject_is_ever_written_in_the_clear(
    open_store: Open, world: World, url: str | None
) -> None:
    bare = await open_store(None)
    with pytest.raises(InvalidArgument, match="encryption"):
        await bare.append("a", [registered()])
    with pytest.raises(InvalidArgument, match="encryption"):
        await bare.record_snapshot(Snapshot("a", 1, "State", 1, subject=ADA))
    with pytest.raises(ConfigurationError):
        await bare.payloads.rewrap_keys()
    store = await open_store(world.encryption())
    bad: Any
    for bad in ("", "\ud800", 7):
        with pytest.raises(InvalidArgument):
            await store.append("a", [registered(subject=bad)])
    with pytest.raises(ReservedStream):
        await store.append(ALL, [registered()])
    with pytest.raises(InvalidArgument):
        await store.append("a", [registered(), {"type": "Registered"}])
    if url is None or "bytea" not in url:
        with pytest.raises(EncodingFailed, match="begins as"):
            await store.append("a", [NewEvent("Forged", {"$sealed": "AAAA"})])
    assert hides(everything(store, url))
    assert await store.forget("nobody") is False


async def test_objects_are_encrypted_and_come_back_as_objects(open_store: Open, world: World) -> None:
    store = await open_store(world.encryption(), types=types)
    old = NewEvent("OrderMade", {"time": "2013-07-01T12:00:00Z", "article": "book"}, subject=ADA)
    await store.append("a", [NewEvent(data=ORDER, subject=ADA), old])
    order, lifted = await store.read("a")
    assert (order.object, order.type) == (ORDER, "order-placed")
    assert (lifted.object.currency, lifted.type) == ("EUR", "order-placed")
    await store.forget(ADA)
    assert [(e.data, e.object, e.type) for e in await store.read("a")] == [(ERASED, ERASED, "order-placed")] * 2


async def test_no_more_keys_are_kept_than_the_cache_may_hold(open_store: Open, world: World) -> None:
    store = await open_store(world.encryption(cache_size=3))
    names = [f"customer-{n}" for n in range(10)]
    await store.append("a", [registered(name, name) for name in names])
    assert [event.data["name"] for event in await store.read("a")] == names
    assert len(store.payloads._ring._handles) == 3
    assert len(store.payloads._ring._of_subject) <= 3


async def test_an_answer_that_was_under_way_brings_no_destroyed_key_back(world: World) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryKeyStore):
        """Answers with what was there when it was asked."""

        async def by_id(self, key_ids: Sequence[uuid.UUID]) -> list[StoredKey]:
            found = await super().by_id(key_ids)
            asked.set()
            await go_on.wait()
            return found

    async with MemoryEventStore(encryption=world.encryption(keys=Slow())) as store:
        await store.append("a", [registered()])
        world.now = 60.0
        reading = asyncio.create_task(store.read("a"))
        await asked.wait()
        await store.forget(ADA)
        go_on.set()
        assert [event.data for event in await reading] == [ERASED]
        await store.append("a", [registered("again")])
        assert [event.data for event in await store.read("a")] == [ERASED, {"name": "again"}]
