"""Persistent subscriptions on a real store: where they begin, what they see of deletes, and whose events they get."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headwater.storage.model import ALL
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.options import CURRENT, ORIGIN, StartAt, SubscriptionOptions
from tests.integration.subscriptions.following import LEASE, following
from tests.plugins.events import events
from tests.plugins.waiting import until


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """An open store, empty, that may delete for good."""
    async with await PostgresEventStore.open(database_url, hard_deletes=True) as store:
        yield store


@pytest.mark.parity("T066", "T067", "T068", "T204", "T205", "T206", "T255", "T256", "T257", "T308", "T309")
@pytest.mark.parametrize("source", ["s", ALL])
@pytest.mark.parametrize(("start", "old"), [(ORIGIN, [1, 2, 3]), (CURRENT, []), (2, [3])], ids=repr)
async def test_a_subscription_begins_where_it_was_told(
    store: PostgresEventStore, source: str, start: StartAt, old: list[int]
) -> None:
    await store.append("s", events(3))
    before = await store.read("s")
    options = SubscriptionOptions(source=source, start=start, batch_size=3)
    async with following(store, options=options) as subscription:
        await store.append("s", events(1))
        await subscription.has_settled(4)
        assert subscription.numbers == [*old, 4]
        assert [event for event in subscription.events if event.number < 4] == before[3 - len(old) :]


@pytest.mark.parity("T204", "T255")
async def test_stored_events_come_in_full_batches(store: PostgresEventStore) -> None:
    await store.append("s", events(6))
    async with following(store, options=SubscriptionOptions(batch_size=3)) as subscription:
        await subscription.has_settled(6)
        assert [len(batch) for batch in subscription.batches] == [3, 3]


@pytest.mark.parity("T218", "T268")
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
async def test_a_deleted_stream_delivers_nothing_until_it_is_there_again(store: PostgresEventStore, hard: bool) -> None:
    await store.append("s", events(2))
    await store.delete_stream("s", hard=hard)
    async with following(store, options=SubscriptionOptions(source="s")) as subscription:
        await store.append("other", events(2))
        if hard:
            await store.append("s", events(1))
            await subscription.has_settled(1)
            assert subscription.numbers == [1]
        else:
            await store.undelete_stream("s")
            await subscription.has_settled(2)
            assert subscription.numbers == [1, 2]


@pytest.mark.parity("L15", "L16")
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
async def test_operators_see_that_the_stream_of_a_subscription_is_deleted_and_since_when(
    store: PostgresEventStore, hard: bool
) -> None:
    await store.append("s", events(2))
    registry = Registry(store.pool, store.sql, store)
    async with following(store, options=SubscriptionOptions(source="s")) as subscription:
        await subscription.has_settled(2)
        [before] = await registry.states("following")
        await store.delete_stream("s", hard=hard)

        async def told() -> bool:
            [state] = await registry.states("following")
            return state.phase == "stuck"

        await until(told)
        [state] = await registry.states("following")
        assert ("deleted for good" if hard else "soft-deleted") in (state.reason or "")
        assert state.since > before.since
    # Whoever stops following it lets the lease go, deleted or not.
    leases = LeaseSession(StoreOptions(url=store.options.url), host="another", lease=LEASE)
    await leases.open()
    try:
        assert len(await leases.claim([state.key])) == 1
    finally:
        await leases.close()


@pytest.mark.parity("T219", "T220", "T221", "T269")
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
async def test_the_store_wide_order_keeps_what_is_soft_deleted_and_passes_over_holes(
    store: PostgresEventStore, hard: bool
) -> None:
    await store.append("s", events(1))
    async with following(store) as subscription:
        await subscription.has_settled(1)
    await store.append("s", events(2))
    await store.delete_stream("s", hard=hard)
    await store.append("later", events(1))
    async with following(store, name="new") as new, following(store) as resumed:
        await new.has_settled(4)
        await resumed.has_settled(4)
        assert new.numbers == ([4] if hard else [1, 2, 3, 4])
        assert resumed.numbers == ([4] if hard else [2, 3, 4])


@pytest.mark.parity("L6")
async def test_a_stream_that_is_made_again_is_delivered_from_its_first_event(store: PostgresEventStore) -> None:
    await store.append("s", events(3))
    async with following(store, options=SubscriptionOptions(source="s")) as subscription:
        await subscription.has_settled(3)
    await store.delete_stream("s", hard=True)
    await store.append("s", events(2))
    async with following(store, options=SubscriptionOptions(source="s")) as subscription:
        await until(lambda: len(subscription.events) == 2)
        assert [(event.number, event.position) for event in subscription.events] == [(1, 4), (2, 5)]


@pytest.mark.parity("T104", "T118", "T119", "T120", "T121", "T122", "T036", "T128")
@pytest.mark.parametrize("shared", [False, True], ids=["own pools", "shared pool"])
async def test_subscriptions_of_one_name_in_two_schemas_never_meet(store: PostgresEventStore, shared: bool) -> None:
    other = await PostgresEventStore.open(
        store.options.url, schema="other", migrate=True, pool=store.pool if shared else None
    )
    async with other:
        await store.append("s", events(2))
        late = SubscriptionOptions(source="s", start=2)
        async with (
            following(store, options=SubscriptionOptions(source="s")) as here,
            following(other, options=SubscriptionOptions(source="s")) as there,
            following(store, name="late", options=late) as later,
        ):
            await other.append("s", events(1))
            await there.has_settled(1)
            await store.append("s", events(1))
            await here.has_settled(3)
            await later.has_settled(3)
            assert (here.numbers, later.numbers) == ([1, 2, 3], [3])
            assert [event.id for event in there.events] == [event.id for event in await other.read("s")]


@pytest.mark.parity("T129")
async def test_a_subscription_outlives_the_other_sharer_of_its_pool(store: PostgresEventStore) -> None:
    other = await PostgresEventStore.open(store.options.url, schema="other", migrate=True, pool=store.pool)
    async with following(store) as subscription:
        await other.append("s", events(1))
        await other.close()
        await store.append("s", events(2))
        await subscription.has_settled(2)
        assert subscription.numbers == [1, 2]


@pytest.mark.parity("T037", "T334", "L40")
async def test_a_subscription_is_removed_through_any_store_and_its_owner_writes_nothing_more(
    store: PostgresEventStore,
) -> None:
    await store.append("s", events(2))
    async with await PostgresEventStore.open(store.options.url) as second:
        async with following(store) as subscription:
            await subscription.has_settled(2)
            assert await Registry(second.pool, second.sql, second).delete("following")
            assert await Registry(store.pool, store.sql, store).states("following") == []
            await store.append("s", events(2))
            await subscription.has_ended()
            seen = subscription.numbers
            await store.append("s", events(1))
        async with following(second) as again:
            await again.has_settled(5)
            assert again.numbers == [1, 2, 3, 4, 5]
        assert subscription.numbers == seen


@pytest.mark.parity("T301")
async def test_links_are_delivered_under_their_own_numbers(store: PostgresEventStore) -> None:
    for stream in ("a", "b"):
        await store.append(stream, events(2))
        await store.link("links", await store.read(stream))
    async with following(store, options=SubscriptionOptions(source="links")) as subscription:
        await subscription.has_settled(4)
        assert [(event.number, event.stream, event.version) for event in subscription.events] == [
            (1, "a", 1),
            (2, "a", 2),
            (3, "b", 1),
            (4, "b", 2),
        ]
