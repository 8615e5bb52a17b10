"""What should run: registered once, found everywhere, with its lag."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater.storage.errors import (
    InvalidArgument,
    StaleEpoch,
    StreamDeleted,
    SubscriptionConflict,
    SubscriptionNotFound,
)
from headwater.storage.leases import Progress
from headwater.storage.model import ALL
from headwater.storage.registry import MOST_PARKED
from tests.integration.registry.conftest import Office
from tests.plugins.events import events

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def checkpoint_of(office: Office, name: str) -> int:
    (state,) = await office.registry.states(name)
    return state.checkpoint


@pytest.mark.parity("T187", "T189")
async def test_a_registered_subscription_is_found_and_listed(office: Office) -> None:
    await office.registry.register("b", "package.module:handler", {"batch_size": 7}, partitions=2)
    await office.registry.register("a", "package.module:other", {})
    found = await office.registry.find("b")
    assert found is not None
    assert (found.handler, found.options, found.source, found.partitions, found.wanted) == (
        "package.module:handler", {"batch_size": 7}, ALL, 2, "running",
    )  # fmt: skip
    assert [record.name for record in await office.registry.subscriptions()] == ["a", "b"]
    assert [state.key.partition for state in await office.registry.states("b")] == [0, 1]
    assert await office.registry.find("c") is None


@pytest.mark.parity("T188")
async def test_registering_again_changes_the_handler_and_keeps_the_checkpoint(office: Office) -> None:
    (grant,) = await office.granted()
    await office.checkpoints.save(grant, Progress(5))
    again = await office.registry.register("orders", "package.module:better", {"batch_size": 9}, start="current")
    assert (again.handler, again.options) == ("package.module:better", {"batch_size": 9})
    assert await checkpoint_of(office, "orders") == 5
    same = await office.registry.register("orders", "package.module:better", {"batch_size": 9})
    assert same.updated_at == again.updated_at


async def test_many_programs_may_register_the_same_at_once(office: Office) -> None:
    await asyncio.gather(*(office.registry.register("orders", "m:h", {}, partitions=3) for _ in range(8)))
    assert [state.key.partition for state in await office.registry.states()] == [0, 1, 2]


async def test_what_the_checkpoints_count_in_cannot_change(office: Office) -> None:
    await office.registry.register("orders", "m:h", {})
    with pytest.raises(SubscriptionConflict):
        await office.registry.register("orders", "m:other", {}, source="order-1")
    found = await office.registry.find("orders")
    assert found is not None
    assert found.handler == "m:h"


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 513])
async def test_a_name_that_cannot_be_one_is_refused(office: Office, name: str) -> None:
    with pytest.raises(InvalidArgument):
        await office.registry.register(name, "m:h", {})


@pytest.mark.parametrize("start", [-1, True, 2**63, datetime(2026, 1, 1), "latest", 1.5])  # noqa: DTZ001
@pytest.mark.parametrize("source", [ALL, "order-1"])
@pytest.mark.parity("E11")
async def test_a_start_that_cannot_be_one_is_refused(office: Office, source: str, start: Any) -> None:
    with pytest.raises(InvalidArgument):
        await office.registry.register("orders", "m:h", {}, source=source, start=start)
    assert await office.registry.subscriptions() == []


@pytest.mark.parametrize(
    ("source", "start", "checkpoint"),
    [
        (ALL, "origin", 0),
        (ALL, "current", 12),
        (ALL, 4, 4),
        (ALL, 99, 99),
        (ALL, NOON + timedelta(hours=1), 8),
        (ALL, NOON - timedelta(hours=1), 0),
        (ALL, NOON + timedelta(days=1), 12),
        ("order-2", "origin", 0),
        ("order-2", "current", 7),
        ("order-2", 3, 3),
        ("order-2", NOON + timedelta(hours=1), 3),
        ("order-2", NOON + timedelta(days=1), 7),
        ("missing", "current", 0),
        ("missing", NOON, 0),
    ],
)
@pytest.mark.parity("E21")
async def test_a_subscription_begins_where_it_was_asked_to(
    office: Office, source: str, start: Any, checkpoint: int
) -> None:
    await office.store.append("order-1", events(5), created_at=NOON)
    await office.store.append("order-2", events(3), created_at=NOON)
    await office.store.append("order-2", events(4), created_at=NOON + timedelta(hours=1))
    await office.registry.register("orders", "m:h", {}, source=source, start=start)
    assert await checkpoint_of(office, "orders") == checkpoint


async def test_a_time_counts_the_links_of_a_stream_too(office: Office) -> None:
    await office.store.append("order-1", events(2), created_at=NOON)
    await office.store.append("order-1", events(2), created_at=NOON + timedelta(hours=1))
    await office.store.link("linked", await office.store.read("order-1"))
    await office.registry.register("orders", "m:h", {}, source="linked", start=NOON + timedelta(minutes=1))
    assert await checkpoint_of(office, "orders") == 2


@pytest.mark.parity("E11")
async def test_the_end_of_a_soft_deleted_stream_is_no_place_to_begin(office: Office) -> None:
    await office.store.append("order-1", events(2))
    await office.registry.register("there", "m:h", {}, source="order-1", start="current")
    await office.store.delete_stream("order-1")
    with pytest.raises(StreamDeleted):
        await office.registry.register("orders", "m:h", {}, source="order-1", start="current")
    await office.registry.register("there", "m:h", {}, source="order-1", start="current")


async def test_the_lag_is_told_in_events_and_in_seconds(office: Office) -> None:
    await office.store.append("order-1", events(3), created_at=datetime.now(UTC) - timedelta(hours=2))
    await office.store.append("order-2", events(4), created_at=datetime.now(UTC) - timedelta(hours=1))
    (everything,) = await office.granted("everything")
    await office.registry.register("one", "m:h", {}, source="order-2", start=1)
    await office.registry.register("missing", "m:h", {}, source="order-3")
    lag = {state.key.subscription: state for state in await office.registry.states()}
    assert (lag["everything"].head, lag["everything"].lag) == (7, 7)
    assert (lag["one"].head, lag["one"].lag) == (4, 3)
    assert (lag["missing"].head, lag["missing"].lag, lag["missing"].lag_seconds) == (0, 0, 0)
    assert 7200 <= lag["everything"].lag_seconds < 9000
    assert 3600 <= lag["one"].lag_seconds < 5400
    await office.checkpoints.save(everything, Progress(7, delivered=7, redelivered=2))
    (state,) = await office.registry.states("everything")
    assert (state.lag, state.lag_seconds, state.delivered, state.redelivered) == (0, 0, 7, 2)


async def test_a_state_names_the_owner_only_while_the_lease_is_held(office: Office) -> None:
    grants = await office.granted()
    await office.checkpoints.report(grants[0], "live", None)
    (held,) = await office.registry.states()
    assert (held.owner, held.epoch, held.phase) == ("host", 1, "live")
    await office.leases.release(grants)
    (free,) = await office.registry.states()
    assert free.owner is None


async def test_a_phase_keeps_its_beginning_when_only_its_reason_changes(office: Office) -> None:
    (grant,) = await office.granted()
    await office.checkpoints.report(grant, "stuck", "the handler fails")
    (first,) = await office.registry.states()
    await office.checkpoints.report(grant, "stuck", "the handler fails again")
    (second,) = await office.registry.states()
    assert (second.since, second.reason) == (first.since, "the handler fails again")
    await office.checkpoints.report(grant, "live", None)
    (third,) = await office.registry.states()
    assert third.since > first.since
    assert third.reason is None


async def test_what_is_parked_is_counted_exactly_up_to_a_limit_that_is_told(office: Office) -> None:
    await office.granted(partitions=2)

    async def parks(first: int, last: int) -> list[tuple[int, bool]]:
        async with office.store.pool.connection() as conn:
            await conn.execute(
                b"""INSERT INTO "headwater"."parked_events" (
                    "subscription_id", "partition", "position", "number", "reason"
                )
                SELECT "subscription_id", 1, "n", "n", 'failed'
                FROM "headwater"."subscriptions", generate_series(%s::integer, %s) AS "n" """,
                [first, last],
            )
        return [(state.parked, state.parked_more) for state in await office.registry.states("orders")]

    assert await parks(1, MOST_PARKED) == [(0, False), (MOST_PARKED, False)]
    assert await parks(MOST_PARKED + 1, MOST_PARKED + 1) == [(0, False), (MOST_PARKED, True)]
    await office.commands.discard_parked("orders", issued_by="a test", limit=2)
    (_, second) = await office.registry.states("orders")
    assert (second.parked, second.parked_more) == (MOST_PARKED - 1, False)


async def test_what_is_wanted_is_written_with_who_asked_for_it(office: Office) -> None:
    await office.registry.register("orders", "m:h", {})
    await office.registry.set_wanted("orders", "paused", issued_by="ada")
    found = await office.registry.find("orders")
    assert found is not None
    assert found.wanted == "paused"
    (command,) = await office.commands.audit("orders")
    assert (command.verb, command.issued_by, command.outcome) == ("pause", "ada", "wanted state is paused")
    assert (command.applied_at is not None, command.arguments) == (True, {})
    assert found.wanted_why is not None
    assert found.wanted_why.startswith("by ada at ")
    await office.registry.set_wanted("orders", "stopped", issued_by="bob", reason="the disk is full")
    (state,) = await office.registry.states()
    assert state.wanted_why is not None
    who, _, why = state.wanted_why.partition("Z: ")
    assert (who[:10], why) == ("by bob at ", "the disk is full")
    assert (await office.commands.audit("orders"))[0].arguments == {"reason": "the disk is full"}
    await office.registry.set_wanted("orders", "running", issued_by="ada", reason="it is not")
    (state,) = await office.registry.states()
    assert state.wanted_why is None
    with pytest.raises(SubscriptionNotFound):
        await office.registry.set_wanted("missing", "paused", issued_by="ada")


@pytest.mark.parity("T190", "T191", "E10")
async def test_deleting_removes_everything_of_a_subscription_wherever_it_runs(office: Office) -> None:
    (grant,) = await office.granted()
    assert await office.registry.delete("orders", dry_run=True)
    assert await office.registry.find("orders") is not None
    assert await office.registry.delete("orders")
    assert not await office.registry.delete("orders")
    with pytest.raises(StaleEpoch):
        await office.checkpoints.save(grant, Progress(3))
    (again,) = await office.granted()
    assert (again.epoch, again.progress) == (1, Progress(0))
    with pytest.raises(StaleEpoch):
        await office.checkpoints.save(grant, Progress(3))
