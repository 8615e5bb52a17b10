"""What a policy of retention removes, and what stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headwater.storage.errors import HardDeletesDisabled, InvalidArgument
from headwater.storage.model import ImportedEvent, NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import retention
from headwater.storage.postgres.archiving import open_archive
from headwater.storage.postgres.retention import Retention, Truncation, plan, retain
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events

NOW = datetime(2026, 6, 1, tzinfo=UTC)


async def fill(store: PostgresEventStore) -> None:
    """Write three streams of 20 events, one a day up to now, and a stream that links to one's newest."""
    days = (
        ImportedEvent(name, NewEvent("T", tags=["t"]), NOW - timedelta(days=20 - day))
        for day in range(1, 21)
        for name in ("audit-1", "audit-2", "order-1")
    )
    await store.import_events(days, batch_size=15)
    await store.link("audit-links", (await store.read("order-1"))[-2:])


async def versions(store: PostgresEventStore, stream: str) -> list[int]:
    return [event.number for event in await store.read(stream)]


@pytest.fixture(params=["database_url", "partitioned_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a store of each kind."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.mark.parity("L28")
async def test_age_and_count_decide_what_stays_of_each_stream(url: str) -> None:
    async with await PostgresEventStore.open(url, hard_deletes=True) as store:
        await fill(store)
        policy = Retention(category="audit", max_age=timedelta(days=7, hours=12))
        planned = await plan(store, policy, NOW)
        assert [(each.stream, each.keep_from, each.removed) for each in planned] == [
            ("audit-1", 13, None),
            ("audit-2", 13, None),
        ]
        assert [each.removed for each in await retain(store, policy, NOW)] == [12, 12]
        assert await plan(store, policy, NOW) == []
        assert await versions(store, "audit-1") == list(range(13, 21))
        assert await versions(store, "order-1") == list(range(1, 21))
        assert await versions(store, "audit-links") == [1, 2]
        await retain(store, Retention(stream="order-1", max_count=5, max_age=timedelta(days=9)), NOW)
        assert await versions(store, "order-1") == [16, 17, 18, 19, 20]
        await retain(store, Retention(category="audit", max_age=timedelta(0)), NOW + timedelta(days=1))
        assert await versions(store, "audit-1") == await versions(store, "audit-links") == []
        assert (await store.append("audit-1", events(1), 20)).last_version == 21


async def test_what_is_archived_and_young_enough_stays(partitioned_url: str, tmp_path: Path) -> None:
    options = StoreOptions(url=partitioned_url, hard_deletes=True, archive=str(tmp_path))
    async with await PostgresEventStore.open(options=options) as store:
        await fill(store)
        async with open_archive(options) as archivist:
            assert len(await archivist.archive(49)) == 3
        # 48 events are archived: days 1 to 16. The range of the days 11 to 16 has some that are young enough.
        [one, _] = await retain(store, Retention(category="audit", max_age=timedelta(days=7, hours=12)), NOW)
        assert 8 <= one.keep_from <= 13
        assert await versions(store, "audit-1") == list(range(one.keep_from, 21))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": "s"},
        {"stream": "s", "category": "c", "max_count": 1},
        {"max_count": 1},
        {"stream": "", "max_count": 1},
        {"stream": "s", "max_count": -1},
        {"stream": "s", "max_age": timedelta(-1)},
    ],
)
def test_a_policy_that_says_nothing_clear_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Retention(**fields)


async def test_a_store_that_may_not_delete_for_good_retains_nothing(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url) as store:
        await fill(store)
        with pytest.raises(HardDeletesDisabled):
            await retain(store, Retention(stream="order-1", max_count=1))


async def test_a_stream_that_is_made_again_meanwhile_keeps_what_it_has(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await PostgresEventStore.open(url, hard_deletes=True) as store:
        await fill(store)
        made = retention.plan

        async def plan_late(*arguments: Any) -> list[Truncation]:
            planned = await made(*arguments)
            await store.delete_stream("audit-1", hard=True)
            await store.append("audit-1", events(5))
            return planned

        monkeypatch.setattr(retention, "plan", plan_late)
        done = await retain(store, Retention(category="audit", max_count=10), NOW)
        assert [(each.stream, each.removed) for each in done] == [("audit-2", 10)]
        assert await versions(store, "audit-1") == [1, 2, 3, 4, 5]
