"""A codec of the user's own: what it has encoded, it decodes, wherever events and snapshots are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from headwater.storage.codec import JsonCodec
from headwater.storage.errors import EncodingFailed
from headwater.storage.memory import MemoryEventStore
from headwater.storage.model import ALL, Filter, NewEvent, Snapshot
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.store import EventStore


class Reversed:
    """Writes text backward: its stored form is no JSON."""

    def encode(self, event_type: str, value: str) -> bytes:
        return value[::-1].encode()

    def decode(self, event_type: str, raw: bytes) -> str:
        return bytes(raw).decode()[::-1]


@pytest.fixture
def codec() -> type[Reversed]:
    """The codec's class."""
    return Reversed


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, codec: type[Reversed]) -> AsyncIterator[EventStore]:
    """An open store with a codec of its own."""
    opened = (
        MemoryEventStore(codec=codec())
        if request.param == "memory"
        else await PostgresEventStore.open(
            request.getfixturevalue("empty_database_url"), payload="bytea", migrate=True, codec=codec()
        )
    )
    async with opened:
        yield opened


async def test_payloads_are_decoded_wherever_they_are_read(store: EventStore) -> None:
    async with store.subscribe(ALL, selector=lambda event: event.data == "old") as batches:
        await store.append("s", [NewEvent("Said", "new", metadata="by me"), NewEvent("Said", "old")])  # type: ignore[arg-type]
        assert [event.data for event in await anext(batches)] == ["old"]
    await store.link("links", await store.read("s"))
    for found in (
        await store.read("s"),
        await store.read("links"),
        await store.read_all(where=Filter(types=("Said",))),
        list((await store.read_page(ALL, 0, 10)).events),
        list((await store.read_page("s", 0, 10)).events),
        [event async for event in store.stream("s")],
    ):
        assert [(event.data, event.metadata) for event in found] == [("new", "by me"), ("old", None)]
    metadata: Any = "by me"
    await store.record_snapshot(Snapshot("s", 2, "State", "old", metadata))
    saved = await store.read_snapshot("s")
    assert (saved.data, saved.metadata) == ("old", metadata)


class Forgetful(Reversed):
    """Cannot read back everything that it has written."""

    def decode(self, event_type: str, raw: bytes) -> str:
        if event_type == "Lost":
            raise EncodingFailed(event_type, "nobody knows any more")
        return super().decode(event_type, raw)


@pytest.mark.parity("L11")
@pytest.mark.parametrize("codec", [Forgetful])
async def test_an_event_that_cannot_be_decoded_is_nobody_elses_trouble(store: EventStore) -> None:
    async with store.subscribe("sound") as sound, store.subscribe(ALL) as everything:
        await store.append("lost", [NewEvent("Lost", "gone")])
        await store.append("sound", [NewEvent("Said", "old")])
        with pytest.raises(EncodingFailed):
            _ = [event.data for event in await anext(everything)]
        assert [event.data for event in await anext(sound)] == ["old"]
        await store.append("sound", [NewEvent("Said", "new")])
        assert [event.data for event in await anext(sound)] == ["new"]
    with pytest.raises(EncodingFailed):
        _ = [event.data for event in await store.read("lost")]
    assert len(await store.read("sound")) == 2


class Tagged(JsonCodec):
    """Derives from the store's own codec, and writes more."""

    def encode(self, event_type: str, value: Any) -> bytes:
        return super().encode(event_type, {"type": event_type, "value": value})


@pytest.mark.parametrize("codec", [Tagged])
async def test_a_codec_that_derives_from_json_encodes_every_event_of_many(store: EventStore) -> None:
    await store.append("s", [NewEvent("One", {"n": 1}), NewEvent("Two", {"n": None})])
    expected = [{"type": "One", "value": {"n": 1}}, {"type": "Two", "value": {"n": None}}]
    assert [event.data for event in await store.read("s")] == expected
