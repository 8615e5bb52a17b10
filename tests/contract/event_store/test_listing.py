"""What is known about streams: one of them, or all of them by the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater.storage.errors import InvalidArgument, StreamDeleted, StreamNotFound
from headwater.storage.model import ALL, StreamPage
from headwater.storage.store import EventStore, StreamSort
from tests.plugins.events import events

SORTED: dict[StreamSort, list[str]] = {
    "name": ["B", "a", "b", "é"],
    "stream_id": ["b", "a", "é", "B"],
    "version": ["a", "é", "B", "b"],
    "created_at": ["B", "é", "a", "b"],
}

SEARCHES: list[tuple[str | None, list[str]]] = [
    ("", [ALL, "a_b", "axb", "a%b", "100\\", "Order-1"]),
    (None, [ALL, "a_b", "axb", "a%b", "100\\", "Order-1"]),
    ("a_b", ["a_b"]),
    ("_", ["a_b"]),
    ("%", ["a%b"]),
    ("\\", ["100\\"]),
    ("b", ["a_b", "axb", "a%b"]),
    ("order", []),
    ("Order", ["Order-1"]),
    (ALL, [ALL]),
    ("'", []),
]

BAD_PAGES: list[dict[str, Any]] = [
    {"page": 0},
    {"page": -1},
    {"page": "1"},
    {"page": 2**63},
    {"page_size": 0},
    {"page_size": 2**62, "page": 2**62},
    {"sort": "status"},
    {"sort": None},
    {"sort": "name; DROP TABLE x"},
    {"search": 7},
    {"search": "nul\0"},
    {"search": "\ud800"},
    {"descending": "yes"},
]


def names(page: StreamPage) -> list[str]:
    """The names on a page."""
    return [entry.name for entry in page.entries]


@pytest.mark.parity("T182", "T183", "T184", "T185", "T186", "T272", "T273", "T274", "T180")
async def test_a_stream_is_described(store: EventStore) -> None:
    empty = await store.stream_info(ALL)
    assert (empty.name, empty.stream_id, empty.version, empty.status) == (ALL, 0, 0, "active")
    await store.append("a", events(3))
    await store.append("b", events(1))
    await store.append("b", events(1))
    a, b = await store.stream_info("a"), await store.stream_info("b")
    assert (a.name, a.version, a.status, a.deleted_at, a.truncated_before) == ("a", 3, "active", None, 1)
    assert (b.version, a.stream_id != b.stream_id, (await store.stream_info(ALL)).version) == (2, True, 5)
    assert a.created_at is not None
    assert abs(datetime.now(UTC) - a.created_at) < timedelta(minutes=5)
    with pytest.raises(StreamNotFound):
        await store.stream_info("c")


@pytest.mark.parity("T275")
async def test_a_deleted_stream_is_not_described(store: EventStore) -> None:
    for name in ("soft", "hard", "kept"):
        await store.append(name, events(1))
    await store.delete_stream("soft")
    await store.delete_stream("hard", hard=True)
    with pytest.raises(StreamDeleted):
        await store.stream_info("soft")
    with pytest.raises(StreamNotFound):
        await store.stream_info("hard")
    assert (await store.stream_info("kept")).version == 1


@pytest.mark.parity("T226")
async def test_an_empty_store_lists_its_order(store: EventStore) -> None:
    page = await store.list_streams()
    assert (names(page), page.page_number, page.page_size) == ([ALL], 1, 50)
    assert (page.total_entries, page.total_pages) == (1, 1)


@pytest.mark.parity("T227", "T230", "E13")
async def test_streams_are_listed_by_the_page(store: EventStore) -> None:
    for number in range(6):
        await store.append(f"s-{number}", events(number + 1))
    everything = await store.list_streams()
    assert names(everything) == [ALL, *(f"s-{number}" for number in range(6))]
    assert [entry.version for entry in everything.entries] == [21, 1, 2, 3, 4, 5, 6]
    pages = [await store.list_streams(page=number, page_size=2) for number in (1, 2, 3, 4, 5)]
    assert [names(page) for page in pages] == [[ALL, "s-0"], ["s-1", "s-2"], ["s-3", "s-4"], ["s-5"], []]
    assert {(page.total_entries, page.total_pages, page.page_size) for page in pages} == {(7, 4, 2)}


@pytest.mark.parity("T228")
async def test_a_list_is_sorted(store: EventStore) -> None:
    day = datetime(2013, 7, 1, tzinfo=UTC)
    for number, (name, version) in enumerate([("b", 4), ("a", 1), ("é", 2), ("B", 3)]):
        await store.append(name, events(version), created_at=day - timedelta(days=number))
    for sort, expected in SORTED.items():
        listed = await store.list_streams(sort=sort)
        assert [name for name in names(listed) if name != ALL] == expected, sort
        backwards = await store.list_streams(sort=sort, descending=True)
        assert [name for name in names(backwards) if name != ALL] == expected[::-1], sort


@pytest.mark.parity("T231")
async def test_soft_deleted_streams_are_listed_and_hard_deleted_ones_are_not(store: EventStore) -> None:
    for name in ("one", "two", "three"):
        await store.append(name, events(1))
    await store.delete_stream("two")
    await store.delete_stream("one", hard=True)
    await store.delete_stream("three")
    page = await store.list_streams(sort="deleted_at")
    assert [(entry.name, entry.status, entry.deleted_at is None) for entry in page.entries] == [
        ("two", "deleted", False),
        ("three", "deleted", False),
        (ALL, "active", True),
    ]
    assert page.total_entries == 3
    assert names(await store.list_streams(sort="deleted_at", descending=True)) == ["three", "two", ALL]


@pytest.mark.parity("T229", "L45", "E13")
async def test_a_search_is_taken_literally(store: EventStore) -> None:
    for name in ("a_b", "axb", "a%b", "100\\", "Order-1"):
        await store.append(name, events(1))
    for search, expected in SEARCHES:
        page = await store.list_streams(search=search)
        assert (names(page), page.total_entries, page.total_pages) == (expected, len(expected), 1), search


@pytest.mark.parity("L41")
async def test_a_page_that_can_never_be_is_refused(store: EventStore) -> None:
    for bad in BAD_PAGES:
        with pytest.raises(InvalidArgument):
            await store.list_streams(**bad)
