"""What operators ask for, and what becomes of events that were set aside."""

from __future__ import annotations

import itertools

import pytest

from headwater.storage.errors import InvalidArgument, StaleEpoch, SubscriptionNotFound
from headwater.storage.leases import Grant, ParkedEvent
from headwater.storage.registry import ParkedFilter
from tests.integration.registry.conftest import Office
from tests.plugins.events import events


async def park(office: Office, grant: Grant, *keys: str | None) -> None:
    """Append an event for each key and park it; the first of a key has failed, the others wait behind it."""
    result = await office.store.append("order-1", events(len(keys)))
    stored = await office.store.read_all(start=result.first_position)
    seen: set[str | None] = set()
    parked = []
    for event, key in zip(stored, keys, strict=True):
        behind = key is not None and key in seen
        seen.add(key)
        parked.append(
            ParkedEvent(event, key, "behind", None, 0) if behind else ParkedEvent(event, key, "failed", "broke\0n", 5)
        )
    await office.checkpoints.park(grant, parked)


async def statuses(office: Office) -> dict[int, str]:
    records = await office.commands.parked("orders", statuses=("parked", "retrying", "settled", "discarded"))
    return {record.position: record.status for record in records}


async def test_a_command_for_all_partitions_is_answered_by_each_owner(office: Office) -> None:
    grants = await office.granted(partitions=2)
    lock_ids = [grant.key.lock_id for grant in grants]
    issued = await office.commands.issue("orders", "rewind", {"to": 3}, issued_by="ada")
    opened = await office.commands.open(lock_ids)
    assert [command.command_id for command in opened] == issued
    assert [(c.partition, c.verb, c.arguments, c.lock_id) for c in opened] == [
        (0, "rewind", {"to": 3}, lock_ids[0]),
        (1, "rewind", {"to": 3}, lock_ids[1]),
    ]
    await office.commands.finish(grants[0], issued[0], "done")
    await office.commands.finish(grants[0], issued[0], "done twice")
    assert [command.partition for command in await office.commands.open(lock_ids)] == [1]
    audit = await office.commands.audit("orders")
    assert [(c.command_id, c.outcome) for c in audit] == [(issued[1], None), (issued[0], "done")]


async def test_a_command_for_one_partition_is_seen_by_its_owner_only(office: Office) -> None:
    grants = await office.granted(partitions=2)
    await office.commands.issue("orders", "rewind", {"to": 3}, issued_by="ada", partition=1)
    assert await office.commands.open([grants[0].key.lock_id]) == []
    assert len(await office.commands.open([grants[1].key.lock_id])) == 1


async def test_a_command_for_what_is_not_there_is_refused(office: Office) -> None:
    await office.granted()
    with pytest.raises(SubscriptionNotFound):
        await office.commands.issue("missing", "rewind", issued_by="ada")
    with pytest.raises(SubscriptionNotFound):
        await office.commands.issue("orders", "rewind", issued_by="ada", partition=1)
    with pytest.raises(SubscriptionNotFound):
        await office.commands.retry_parked("missing", issued_by="ada")


async def test_an_owner_that_was_replaced_leaves_a_command_to_the_next_one(office: Office) -> None:
    (stale,) = await office.granted()
    (command_id,) = await office.commands.issue("orders", "rewind", {"to": 3}, issued_by="ada")
    (current,) = await office.leases.claim([stale.key])
    with pytest.raises(StaleEpoch):
        await office.commands.finish(stale, command_id, "done")
    assert len(await office.commands.open([stale.key.lock_id])) == 1
    await office.commands.finish(current, command_id, "done")
    assert await office.commands.open([stale.key.lock_id]) == []


async def test_parked_events_are_listed_with_their_reason(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b", "a", None)
    first, *_ = records = await office.commands.parked("orders")
    assert [(r.position, r.partition_key, r.reason) for r in records] == [
        (1, "a", "failed"), (2, "b", "failed"), (3, "a", "behind"), (4, None, "failed"),
    ]  # fmt: skip
    assert (first.stream, first.type, first.error, first.attempts) == ("order-1", "OrderPlaced", "broken", 5)
    assert [r.position for r in await office.commands.parked("orders", where=ParkedFilter(key="a"))] == [1, 3]
    assert [r.position for r in await office.commands.parked("orders", after=2, limit=1)] == [3]
    (state,) = await office.registry.states()
    assert state.parked == 4


async def test_a_retry_takes_the_earlier_events_of_the_same_key_along(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b", "a", None, None)
    chosen = ParkedFilter(positions=(3, 5))
    change = await office.commands.retry_parked("orders", issued_by="ada", where=chosen)
    assert (change.positions, change.earlier) == ((1, 3, 5), 1)
    assert [(each.position, each.key) for each in await office.commands.to_retry(grant)] == [
        (1, "a"),
        (3, "a"),
        (5, None),
    ]
    assert (await office.commands.cancel_retry("orders", issued_by="ada")).positions == (1, 3, 5)
    assert await office.commands.to_retry(grant) == []
    only = ParkedFilter(key="b")
    assert (await office.commands.retry_parked("orders", issued_by="ada", where=only)).positions == (2,)
    assert (await office.commands.retry_parked("orders", issued_by="ada", limit=1, reason="one first")).positions == (
        1,
    )
    audit = await office.commands.audit("orders")
    assert [(each.verb, each.outcome) for each in audit] == [
        ("retry parked", "1 event, 3 stay parked"),
        ("retry parked", "1 event"),
        ("cancel retry", "3 events"),
        ("retry parked", "3 events, 1 before the chosen ones among them"),
    ]
    assert audit[0].arguments == {"limit": 1, "reason": "one first"}


async def test_a_retry_that_fails_sends_the_rest_of_its_key_back_and_no_other(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b", "a", "a")
    await office.commands.retry_parked("orders", issued_by="ada")
    await office.commands.retried(grant, 1, "a")
    await office.commands.retried(grant, 3, "a", "broke again")
    await office.commands.retried(grant, 2, "b")
    assert await statuses(office) == {1: "settled", 2: "settled", 3: "parked", 4: "parked"}
    assert await office.checkpoints.parked_keys(grant) == {"a"}
    record = (await office.commands.parked("orders"))[0]
    assert (record.position, record.attempts, record.error) == (3, 1, "broke again")


async def test_a_retry_under_a_stale_epoch_changes_nothing(office: Office) -> None:
    (stale,) = await office.granted()
    await park(office, stale, "a")
    await office.commands.retry_parked("orders", issued_by="ada")
    await office.leases.claim([stale.key])
    assert await office.commands.to_retry(stale) == []
    with pytest.raises(StaleEpoch):
        await office.commands.retried(stale, 1, "a")
    assert await statuses(office) == {1: "retrying"}


async def test_discarded_events_hold_up_their_key_no_more(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b", "a")
    change = await office.commands.discard_parked("orders", issued_by="ada", where=ParkedFilter(key="a"))
    assert change.positions == (1, 3)
    assert await office.checkpoints.parked_keys(grant) == {"b"}
    change = await office.commands.discard_parked("orders", issued_by="ada", where=ParkedFilter(positions=()))
    assert change.positions == ()
    assert await statuses(office) == {1: "discarded", 2: "parked", 3: "discarded"}


async def test_an_event_that_was_settled_and_fails_again_is_parked_anew(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a")
    await office.commands.retry_parked("orders", issued_by="ada")
    await office.commands.retried(grant, 1, "a")
    (event,) = await office.store.read_all()
    await office.checkpoints.park(grant, [ParkedEvent(event, "a", "failed", "after a rewind", 2)])
    (record,) = await office.commands.parked("orders")
    assert (record.status, record.error, record.attempts) == ("parked", "after a rewind", 2)


async def test_a_retry_can_be_narrowed_limited_and_tried_first(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b", "a", None)
    everything = office.commands.retry_parked
    for where, positions in [
        (ParkedFilter(stream="order-1"), [1, 2, 3, 4]),
        (ParkedFilter(stream="order-2"), []),
        (ParkedFilter(type="OrderPlaced", key="a"), [1, 3]),
        (ParkedFilter(error="roke"), [1, 2, 4]),
        (ParkedFilter(error="%"), []),
    ]:
        change = await everything("orders", issued_by="ada", where=where, dry_run=True)
        assert [each for each in change.positions if each != 3 or change.behind == 0] == positions
        assert [r.position for r in await office.commands.parked("orders", where=where)] == positions
    assert (await everything("orders", issued_by="ada", limit=2, dry_run=True)).positions == (1, 2)
    assert await office.commands.to_retry(grant) == []
    assert await office.commands.audit("orders") == [], "a dry run leaves nothing, not even an audit"


async def test_a_rate_spreads_the_retries_and_keeps_the_order_of_a_key(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "a", "b")
    await office.commands.retry_parked("orders", issued_by="ada", rate=0.001)
    assert [each.position for each in await office.commands.to_retry(grant)] == [1]
    due = [record.retry_at for record in await office.commands.parked("orders")]
    assert [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(due) if earlier and later] == [
        1000, 1000,
    ]  # fmt: skip
    await office.commands.begin_retry(grant, 1)
    await office.commands.retried(grant, 1, "a")
    (following,) = await office.commands.to_retry(grant)
    assert following.position == 2
    assert 900 < following.wait <= 1000, "the next one of its key is not due yet"
    (asked,) = await office.commands.audit("orders")
    assert asked.arguments == {"rate": 0.001}


async def test_a_correction_is_audited_and_leaves_the_stored_event_alone(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b")
    for after in (b'{"n":7}', b'{"n":8}'):
        await office.commands.edit_parked(
            "orders", 1, after, stored=b'{"n":1}', edited_by="ada", reason="a typing error"
        )
    first, second = await office.commands.parked("orders")
    assert (first.edited, second.edited) == (True, False)
    edits = await office.commands.parked_edits(first.parked_id)
    assert [(e.edited_by, e.reason, e.before, e.after) for e in edits] == [
        ("ada", "a typing error", {"n": 1}, {"n": 7}),
        ("ada", "a typing error", {"n": 7}, {"n": 8}),
    ]
    assert (await office.store.read("order-1"))[0].data == {"n": 1}
    await office.commands.retry_parked("orders", issued_by="ada")
    await office.commands.retried(grant, 1, "a")
    assert [r.position for r in await office.commands.parked("orders")] == [2]
    audit = await office.commands.audit("orders")
    assert [(c.verb, c.edit and (c.edit.before, c.edit.after)) for c in audit] == [
        ("retry parked", None),
        ("edit parked", (b'{"n":7}', b'{"n":8}')),
        ("edit parked", (b'{"n":1}', b'{"n":7}')),
    ], "also when it is parked no more"
    assert [c.verb for c in await office.commands.audit("orders", limit=1)] == ["retry parked"]
    assert await office.commands.audit("orders", since=audit[1].issued_at) == audit[:2]
    with pytest.raises(InvalidArgument, match="1 is not parked"):
        await office.commands.edit_parked("orders", 1, b"{}", stored=b"{}", edited_by="ada")
