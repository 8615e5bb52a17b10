"""What every adapter promises of an operator's word: a retry with a limit or a rate, its end, what is given up."""

from __future__ import annotations

import pytest

from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import Grant, ParkedEvent, Progress
from headwater.storage.parking import ParkedChange
from headwater.storage.registry import ParkedFilter
from headwater.subscriptions.ports import Leases
from tests.contract.subscriptions.worlds import World, event

FIRST = ParkedFilter(positions=(1,))


async def parked(world: World, owner: Leases | None = None) -> Grant:
    """Return a grant under which four events of one key, two of another, and one without a key were parked."""
    owner = owner or await world.owner("one")
    (grant,) = await owner.claim(await world.keys(1))
    await world.checkpoints.park(
        grant,
        [
            ParkedEvent(event(1), "a", "failed", "it broke", 5),
            ParkedEvent(event(2), "a", "behind", None, 0),
            ParkedEvent(event(3), "b", "failed", "it is away", 5),
            ParkedEvent(event(4), None, "failed", "it broke", 5),
            ParkedEvent(event(5), "a", "behind", None, 0),
            ParkedEvent(event(6), "b", "behind", None, 0),
            ParkedEvent(event(7), "a", "behind", None, 0),
        ],
    )
    return grant


async def due(world: World, grant: Grant) -> list[int]:
    """Return what an owner would hand out now."""
    return [each.position for each in await world.parking.to_retry(grant) if each.wait <= 0]


async def delivered(world: World, grant: Grant, keys: dict[int, str | None] | None = None) -> list[int]:
    """Hand out what is due, one after the other, until nothing is; returns it in that order."""
    of = keys or {1: "a", 2: "a", 3: "b", 4: None, 5: "a", 6: "b", 7: "a"}
    handed: list[int] = []
    while found := await due(world, grant):
        begun = False
        for position in found:
            if await world.parking.begin_retry(grant, position) is not None:
                begun = True
                handed.append(position)
                await world.parking.retried(grant, position, of.get(position, "a"))
        assert begun, f"{found} are due, and none of them may be begun"
    return handed


async def test_a_retry_of_a_head_says_how_many_only_waited_behind_it_and_delivers_them(world: World) -> None:
    grant = await parked(world)
    change = await world.retry_parked(grant.key, FIRST)
    assert change == ParkedChange((1, 2, 5, 7), behind=3, to_deliver=(1, 2, 5, 7))
    assert await delivered(world, grant) == [1, 2, 5, 7]
    assert await world.checkpoints.parked_keys(grant) == {"b"}


async def test_what_stands_before_a_chosen_event_comes_along_and_is_counted(world: World) -> None:
    grant = await parked(world)
    change = await world.retry_parked(grant.key, ParkedFilter(positions=(4, 5)))
    assert change == ParkedChange((1, 2, 4, 5, 7), earlier=2, behind=1, to_deliver=(1, 2, 4, 5, 7))


@pytest.mark.parametrize("limit", range(8))
async def test_a_limit_is_how_many_events_are_delivered(world: World, limit: int) -> None:
    grant = await parked(world)
    change = await world.retry_parked(grant.key, limit=limit)
    assert change.positions == change.to_deliver == tuple(range(1, limit + 1))
    assert change.left == 7 - limit
    assert sorted(await delivered(world, grant)) == list(range(1, limit + 1))


async def test_after_a_limit_the_next_one_of_a_key_is_its_head_and_later_ones_wait_behind_that(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, FIRST, limit=2)
    assert await delivered(world, grant) == [1, 2]
    await world.checkpoints.park(grant, [ParkedEvent(event(8), "a", "behind", None, 0)])
    assert await due(world, grant) == []
    assert await world.reasons(grant.key) == {
        3: "failed", 4: "failed", 5: "held", 6: "behind", 7: "behind", 8: "behind",
    }  # fmt: skip
    assert await world.checkpoints.parked_keys(grant) == {"a", "b"}
    assert (await world.retry_parked(grant.key, ParkedFilter(positions=(5,)))).positions == (5, 7, 8)
    assert await delivered(world, grant) == [5, 7, 8]


async def test_what_was_parked_after_the_last_of_a_retry_follows_as_any_event_of_its_key(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, ParkedFilter(key="a"), limit=4)
    await world.checkpoints.park(grant, [ParkedEvent(event(8), "a", "behind", None, 0)])
    assert await delivered(world, grant) == [1, 2, 5, 7, 8]


async def test_a_dry_run_says_the_same_and_changes_nothing(world: World) -> None:
    grant = await parked(world)
    before = await world.reasons(grant.key)
    for where in (
        ParkedFilter(),
        FIRST,
        ParkedFilter(key="b"),
        ParkedFilter(error="broke"),
        ParkedFilter(positions=()),
    ):
        for limit in (None, 1, 3):
            dry = await world.retry_parked(grant.key, where, limit=limit, dry_run=True)
            assert await due(world, grant) == []
            assert await world.retry_parked(grant.key, where, limit=limit) == dry
            assert sorted(await due(world, grant)) == list(dry.to_deliver)
            back = await world.cancel_retry(grant.key, dry_run=True)
            assert await world.cancel_retry(grant.key) == back
            assert back.positions == dry.positions
            await world.retry_parked(grant.key)  # so that those which wait are behind their heads again
            for position, key in ((1, "a"), (3, "b"), (4, None)):
                assert await world.parking.begin_retry(grant, position) is not None
                error = "it is away" if position == 3 else "it broke"
                await world.parking.retried(grant, position, key, error)
            assert await world.reasons(grant.key) == before
            dry = await world.discard_parked(grant.key, where, limit=limit, release=True, dry_run=True)
            assert await world.reasons(grant.key) == before


async def test_what_is_taken_back_is_not_delivered_and_nothing_follows_what_was_under_way(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    assert await world.parking.begin_retry(grant, 1) is not None
    change = await world.cancel_retry(grant.key)
    assert change == ParkedChange((2, 3, 4, 5, 6, 7), under_way=(1,))
    await world.parking.retried(grant, 1, "a")
    await world.checkpoints.park(grant, [ParkedEvent(event(8), "a", "behind", None, 0)])
    assert await due(world, grant) == []
    for position in range(2, 9):
        assert await world.parking.begin_retry(grant, position) is None
    assert await world.reasons(grant.key) == {
        2: "held", 3: "failed", 4: "failed", 5: "behind", 6: "behind", 7: "behind", 8: "behind",
    }  # fmt: skip
    assert (await world.retry_parked(grant.key)).behind == 0, "all of them were chosen"
    assert await delivered(world, grant) == [2, 3, 4, 5, 6, 7, 8]


async def test_nothing_follows_the_last_one_that_was_under_way_when_a_retry_was_taken_back(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, ParkedFilter(key="a"))
    for position in (1, 2, 5):
        assert await world.parking.begin_retry(grant, position) is not None
        await world.parking.retried(grant, position, "a")
    assert await world.parking.begin_retry(grant, 7) is not None
    await world.checkpoints.park(grant, [ParkedEvent(event(8), "a", "behind", None, 0)])
    assert await world.cancel_retry(grant.key) == ParkedChange((), under_way=(7,))
    await world.parking.retried(grant, 7, "a")
    assert await due(world, grant) == []
    assert await world.retry_parked(grant.key, ParkedFilter(key="a")) == ParkedChange((8,), to_deliver=(8,))


async def test_what_was_under_way_and_taken_back_fails_as_any_other(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, ParkedFilter(key="a"))
    assert await world.parking.begin_retry(grant, 1) is not None
    await world.cancel_retry(grant.key)
    await world.parking.retried(grant, 1, "a", "still broken")
    reasons = await world.reasons(grant.key)
    assert [reasons[each] for each in (1, 2, 5, 7)] == ["failed", "behind", "behind", "behind"]


async def test_what_was_under_way_when_its_owner_died_is_not_handed_out_after_it_was_taken_back(world: World) -> None:
    one, two = await world.owner("one"), await world.owner("two")
    stale = await parked(world, one)
    await world.retry_parked(stale.key, ParkedFilter(key="a"))
    assert await world.parking.begin_retry(stale, 1) is not None
    await one.release([stale])
    (current,) = await two.claim([stale.key])
    assert (await world.cancel_retry(current.key)).under_way == (1,)
    assert await due(world, current) == []
    await world.retry_parked(current.key, FIRST)
    assert (await world.parking.to_retry(current))[0][:4] == (1, "a", 6, 0), "that attempt stays counted"


async def test_a_part_of_a_retry_is_taken_back_with_the_later_ones_of_its_keys(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    change = await world.cancel_retry(grant.key, ParkedFilter(positions=(5,)))
    assert change == ParkedChange((5, 7), behind=1)
    assert await delivered(world, grant) == [1, 2, 3, 4, 6]
    assert await world.cancel_retry(grant.key) == ParkedChange(), "there is nothing more to take back"


async def test_a_rate_lets_one_event_of_a_retry_go_at_a_time_whatever_its_key(world: World) -> None:
    grant = await parked(world)
    change = await world.retry_parked(grant.key, rate=0.001)
    assert change.positions == (1, 2, 3, 4, 5, 6, 7)
    handed = []
    for _ in change.positions:
        (position,) = await due(world, grant)
        assert await world.parking.begin_retry(grant, position) is not None
        await world.parking.retried(
            grant, position, {1: "a", 2: "a", 3: "b", 4: None, 5: "a", 6: "b", 7: "a"}[position]
        )
        handed.append(position)
        assert await due(world, grant) == []
        for other in set(change.positions) - set(handed):
            assert await world.parking.begin_retry(grant, other) is None, "it is not due"
        assert all(990 < each.wait <= 1000 for each in await world.parking.to_retry(grant))
        await world.let_time_pass(grant.key)  # far more than one turn: what was missed is not made up for
    assert handed == [1, 2, 3, 4, 5, 6, 7]


async def test_a_rate_holds_for_all_partitions_together(world: World) -> None:
    owner = await world.owner("one")
    (grant,) = await owner.claim(await world.keys(1))
    await world.checkpoints.park(grant, [ParkedEvent(event(each), None, "failed", "it broke", 5) for each in (1, 2)])
    await world.retry_parked(grant.key, rate=0.001)
    (found,) = await world.parking.to_retry(grant)
    assert await world.parking.begin_retry(grant, 1) is not None
    assert await world.parking.begin_retry(grant, 2) is None
    assert (found.position, found.wait) == (1, 0)


async def test_a_rate_counts_an_attempt_whose_owner_has_died(world: World) -> None:
    one, two = await world.owner("one"), await world.owner("two")
    stale = await parked(world, one)
    await world.retry_parked(stale.key, rate=0.001)
    assert await world.parking.begin_retry(stale, 1) is not None
    await one.release([stale])
    (current,) = await two.claim([stale.key])
    assert await due(world, current) == []
    assert await world.parking.begin_retry(current, 1) is None
    await world.let_time_pass(current.key)
    assert await due(world, current) == [1]


async def test_a_retry_with_a_rate_goes_beside_another_without(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, ParkedFilter(key="a"), rate=0.001)
    await world.retry_parked(grant.key)
    assert await delivered(world, grant) == [1, 3, 4, 6]
    assert [each.position for each in await world.parking.to_retry(grant)] == [2]


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
async def test_a_rate_that_means_nothing_is_refused(world: World, rate: float) -> None:
    grant = await parked(world)
    with pytest.raises(InvalidArgument, match="rate"):
        await world.retry_parked(grant.key, rate=rate)


async def test_a_rewind_changes_no_turn_and_no_limit(world: World) -> None:
    grant = await parked(world)
    await world.checkpoints.save(grant, Progress(7, 7))
    await world.retry_parked(grant.key, ParkedFilter(key="a"), limit=2)
    grant = grant.rewound()
    await world.checkpoints.rewind(grant, Progress(0), settled=7)
    await world.checkpoints.park(grant, [ParkedEvent(event(each), "a", "behind", None, 0) for each in (1, 2, 5, 7)])
    assert await delivered(world, grant) == [1, 2]
    assert await due(world, grant) == []


async def test_what_waited_behind_an_event_that_is_given_up_stays_and_is_counted(world: World) -> None:
    grant = await parked(world)
    dry = await world.discard_parked(grant.key, FIRST, dry_run=True)
    assert await world.discard_parked(grant.key, FIRST) == dry == ParkedChange((1,), left=3)
    assert await due(world, grant) == []
    assert await world.reasons(grant.key) == {
        2: "held", 3: "failed", 4: "failed", 5: "behind", 6: "behind", 7: "behind",
    }  # fmt: skip
    assert await world.checkpoints.parked_keys(grant) == {"a", "b"}


async def test_what_waited_behind_an_event_that_is_given_up_goes_on_when_it_is_to_be_released(world: World) -> None:
    grant = await parked(world)
    dry = await world.discard_parked(grant.key, FIRST, release=True, dry_run=True)
    assert await world.discard_parked(grant.key, FIRST, release=True) == dry == ParkedChange((1,), to_deliver=(2, 5, 7))
    assert (await world.cancel_retry(grant.key, dry_run=True)).positions == (2, 5, 7), "it can be taken back"
    assert await delivered(world, grant) == [2, 5, 7]
    assert await world.checkpoints.parked_keys(grant) == {"b"}


async def test_all_that_a_filter_means_is_given_up(world: World) -> None:
    grant = await parked(world)
    await world.checkpoints.park(grant, [ParkedEvent(event(each), "c", "behind", None, 0) for each in range(10, 1510)])
    assert len((await world.discard_parked(grant.key, ParkedFilter(key="c"))).positions) == 1500
    assert (await world.discard_parked(grant.key, ParkedFilter(error="broke"))).positions == (1, 4)
    assert (await world.discard_parked(grant.key, limit=2)).positions == (2, 3)
    assert (await world.discard_parked(grant.key)).positions == (5, 6, 7)
    assert await world.checkpoints.parked_keys(grant) == set()


async def test_giving_up_one_that_waits_frees_nothing(world: World) -> None:
    grant = await parked(world)
    change = await world.discard_parked(grant.key, ParkedFilter(positions=(2,)), release=True)
    assert change == ParkedChange((2,), left=2)
    assert await due(world, grant) == []
    await world.retry_parked(grant.key, FIRST)
    assert await delivered(world, grant) == [1, 5, 7]


async def test_giving_up_what_is_to_be_handled_again_says_what_goes_on_behind_it(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, ParkedFilter(key="a"))
    assert await world.parking.begin_retry(grant, 1) is not None
    change = await world.discard_parked(grant.key, FIRST)
    assert change == ParkedChange((1,), to_deliver=(2, 5, 7), under_way=(1,))
    await world.parking.retried(grant, 1, "a")
    assert await delivered(world, grant) == [2, 5, 7]


async def test_what_was_given_up_and_is_parked_anew_has_no_turn_and_no_limit_of_before(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, ParkedFilter(key="a"), limit=3, rate=0.001)
    assert await world.parking.begin_retry(grant, 1) is not None
    await world.discard_parked(grant.key, ParkedFilter(key="a"))
    await world.checkpoints.park(grant, [ParkedEvent(event(each), "a", "behind", None, 0) for each in (2, 5, 7)])
    assert await delivered(world, grant) == [2, 5, 7]


async def test_what_a_rewind_puts_before_a_retry_that_is_taken_back_follows_by_itself(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key, FIRST, limit=1)
    assert await delivered(world, grant) == [1]
    await world.retry_parked(grant.key, ParkedFilter(key="a"))
    grant = grant.rewound()
    await world.checkpoints.rewind(grant, Progress(0), settled=7)
    await world.checkpoints.park(grant, [ParkedEvent(event(1), "a", "behind", None, 0)])
    assert await world.cancel_retry(grant.key) == ParkedChange((2, 5, 7))
    assert await delivered(world, grant) == [1]
    assert await world.checkpoints.parked_keys(grant) == {"a", "b"}
