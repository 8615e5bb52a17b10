"""Transient subscriptions: what is appended from now on, in order, once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from headwater.storage import transient
from headwater.storage.errors import InvalidArgument
from headwater.storage.model import ALL, EventPage, Filter, NewEvent
from headwater.storage.store import EventStore
from tests.plugins.events import events
from tests.plugins.waiting import until


async def take(batches: AsyncIterator[Sequence[Any]], number: int) -> list[Any]:
    """Return the next so many, whatever batches they come in."""
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < number:
            found += await anext(batches)
    return found


@pytest.mark.parity("T059", "T060", "T061")
async def test_a_stream_is_followed_from_now_on(store: EventStore) -> None:
    await store.append("s", events(2))
    async with store.subscribe("s") as batches:
        await store.append("other", events(1))
        await store.append("s", events(2))
        await store.append("s", events(1))
        assert [event.number for event in await take(batches, 3)] == [3, 4, 5]


@pytest.mark.parity("T060")
async def test_what_one_call_appended_comes_as_one_batch(store: EventStore) -> None:
    async with store.subscribe("s") as batches:
        await store.append("s", events(2))
        assert [event.version for event in await anext(batches)] == [1, 2]


@pytest.mark.parity("T062", "E14")
async def test_the_store_wide_order_is_followed(store: EventStore) -> None:
    await store.append("s", events(1))
    async with store.subscribe(ALL) as batches:
        for stream in ("a", "b,with,commas", "s"):
            await store.append(stream, events(1))
        found = await take(batches, 3)
        assert [(event.stream, event.position) for event in found] == [("a", 2), ("b,with,commas", 3), ("s", 4)]


@pytest.mark.parity("T063", "T064", "T065", "E15")
async def test_a_selector_chooses_before_a_mapper_maps(store: EventStore) -> None:
    async with store.subscribe("s", selector=lambda e: e.data["n"] % 2 == 0, mapper=lambda e: e.data["n"]) as batches:
        await store.append("s", events(1))
        await store.append("s", events(4))
        assert await anext(batches) == [2, 4]


@pytest.mark.parity("E15")
async def test_each_subscription_sees_everything(store: EventStore) -> None:
    async with store.subscribe("s") as one, store.subscribe("s") as two:
        await store.append("s", events(2))
        assert await take(one, 2) == await take(two, 2)


@pytest.mark.parity("L11")
async def test_a_selector_that_fails_ends_its_own_subscription_only(store: EventStore) -> None:
    def fail(_: object) -> bool:
        raise ZeroDivisionError

    async with store.subscribe("s", selector=fail) as broken, store.subscribe("s") as sound:
        await store.append("s", events(1))
        with pytest.raises(ZeroDivisionError):
            await anext(broken)
        assert len(await take(sound, 1)) == 1
        await store.append("s", events(1))
        assert len(await take(sound, 1)) == 1


async def test_a_stream_is_followed_before_it_exists_and_when_it_is_made_again(store: EventStore) -> None:
    async with store.subscribe("s") as batches:
        await store.append("s", events(3))
        assert len(await take(batches, 3)) == 3
        await store.delete_stream("s", hard=True)
        await store.append("s", events(2))
        assert [(event.number, event.position) for event in await take(batches, 2)] == [(1, 4), (2, 5)]


@pytest.mark.parity("E16")
async def test_a_delete_delivers_nothing_and_does_not_end_the_subscription(store: EventStore) -> None:
    await store.append("s", events(2))
    await store.delete_stream("s")
    async with store.subscribe("s") as batches:
        await store.undelete_stream("s")
        await store.append("s", events(1))
        assert [event.number for event in await take(batches, 1)] == [3]


async def test_links_are_followed(store: EventStore) -> None:
    await store.append("s", events(2))
    async with store.subscribe("links") as batches:
        await store.link("links", await store.read("s"))
        assert [(event.number, event.stream) for event in await take(batches, 2)] == [(1, "s"), (2, "s")]


@pytest.mark.parity("L32")
async def test_a_filter_is_applied(store: EventStore) -> None:
    async with store.subscribe(ALL, where=Filter(types=("B",))) as batches:
        await store.append("s", [NewEvent("A"), NewEvent("B")])
        await store.append("t", [NewEvent("B"), NewEvent("A")])
        assert [event.position for event in await take(batches, 2)] == [2, 3]


@pytest.mark.parity("T106")
async def test_everything_is_seen_once_while_many_append(store: EventStore) -> None:
    async with store.subscribe(ALL) as batches:
        await asyncio.gather(*(store.append(f"s-{turn % 7}", events(3)) for turn in range(60)))
        assert [event.position for event in await take(batches, 180)] == list(range(1, 181))


async def test_a_subscription_ends_with_its_block(store: EventStore) -> None:
    async with store.subscribe("s") as batches:
        pass
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


@pytest.mark.parity("L41")
async def test_what_cannot_be_followed_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidArgument):
        store.subscribe("")
    with pytest.raises(InvalidArgument):
        store.subscribe("s", selector="module:function")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        store.subscribe("s", where=None)  # type: ignore[arg-type]


async def test_a_follower_that_is_cancelled_as_something_is_appended_ends(store: EventStore) -> None:
    async def follow(batches: AsyncIterator[Sequence[Any]], seen: list[Any]) -> None:
        async for batch in batches:
            seen += batch

    for _ in range(10):
        seen: list[Any] = []
        async with store.subscribe(ALL) as batches:
            following = asyncio.create_task(follow(batches, seen))
            await store.append("s", events(1))
            await until(functools.partial(len, seen))
            await store.append("s", events(1))
            following.cancel()
            async with asyncio.timeout(20):
                await asyncio.wait([following])
            assert following.cancelled()


@pytest.mark.parity("L26")
async def test_who_takes_nothing_keeps_no_more_than_a_page(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "PAGE_SIZE", 10)
    read: list[int] = []

    async def read_page(*arguments: Any, **options: Any) -> EventPage:
        page = await plain(*arguments, **options)
        read.append(len(page.events))
        return page

    plain = store.read_page
    monkeypatch.setattr(store, "read_page", read_page)
    async with store.subscribe(ALL) as batches:
        for _ in range(5):
            await store.append("s", events(20))
        assert sum(read) <= 10
        found: list[Any] = []
        while len(found) < 100:
            found += await anext(batches)
            assert sum(read) <= len(found) + 10
    assert [event.position for event in found] == list(range(1, 101))
