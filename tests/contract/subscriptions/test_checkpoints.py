"""What every adapter of checkpoints promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from headwater.storage.errors import StaleEpoch
from headwater.storage.leases import Grant, Halt, ParkedEvent, Progress
from headwater.subscriptions.ports import Checkpoints
from tests.contract.subscriptions.worlds import World, event


async def granted(world: World) -> Grant:
    """Return the grant of a new partition."""
    (grant,) = await (await world.owner("one")).claim(await world.keys(1))
    return grant


def parked(position: int, key: str | None = "k", reason: str = "failed") -> ParkedEvent:
    return ParkedEvent(event(position), key, reason, "it broke", 5)


WRITES: dict[str, Callable[[Checkpoints, Grant], Awaitable[object]]] = {
    "save": lambda checkpoints, grant: checkpoints.save(grant, Progress(9)),
    "save durably": lambda checkpoints, grant: checkpoints.save(grant, Progress(9), durable=True),
    "rewind": lambda checkpoints, grant: checkpoints.rewind(grant.rewound(), Progress(0)),
    "take back": lambda checkpoints, grant: checkpoints.take_back(grant.rewound(), Progress(0)),
    "load": lambda checkpoints, grant: checkpoints.load(grant),
    "report": lambda checkpoints, grant: checkpoints.report(grant, "live", None),
    "report consumers": lambda checkpoints, grant: checkpoints.report_consumers(grant, 2),
    "halt": lambda checkpoints, grant: checkpoints.halt(grant, 1, Halt("failed", "no customer")),
    "halted": lambda checkpoints, grant: checkpoints.halted(grant),
    "park": lambda checkpoints, grant: checkpoints.park(grant, [parked(8)]),
    "parked keys": lambda checkpoints, grant: checkpoints.parked_keys(grant),
}


@pytest.mark.parity("T192")
async def test_what_is_saved_is_what_is_loaded(world: World) -> None:
    grant = await granted(world)
    assert await world.checkpoints.load(grant) == Progress(0)
    for progress in (Progress(3, 8, 2), Progress(8), Progress(9, 2**62, 1)):
        await world.checkpoints.save(grant, progress)
        assert await world.checkpoints.load(grant) == progress


@pytest.mark.parity("T193")
async def test_a_checkpoint_in_a_stream_keeps_the_incarnation_it_counts_in(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5, stream_id=7))
    assert await world.checkpoints.load(grant) == Progress(5, stream_id=7)


@pytest.mark.parity("L3")
@pytest.mark.parametrize("write", WRITES)
async def test_a_stale_epoch_can_do_nothing(world: World, write: str) -> None:
    keys = await world.keys(1)
    one, two = await world.owner("one"), await world.owner("two")
    (stale,) = await one.claim(keys)
    await world.checkpoints.save(stale, Progress(5))
    await one.release([stale])
    (current,) = await two.claim(keys)
    with pytest.raises(StaleEpoch) as raised:
        await WRITES[write](world.checkpoints, stale)
    assert (raised.value.partition, raised.value.epoch) == (0, stale.epoch)
    assert await world.checkpoints.load(current) == Progress(5)
    assert await world.checkpoints.parked_keys(current) == set()


@pytest.mark.parity("L3")
async def test_a_late_save_of_a_lower_checkpoint_changes_nothing(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5, 9, 1))
    await world.checkpoints.save(grant, Progress(3, 4, 7))
    assert await world.checkpoints.load(grant) == Progress(5, 9, 1)


async def test_what_was_taken_back_lowers_the_checkpoint_and_is_no_replay(world: World) -> None:
    grant = (await granted(world)).rewound()
    await world.checkpoints.rewind(grant, Progress(0), settled=4, side_effects=False)
    await world.checkpoints.park(grant, [parked(6, None)])
    await world.checkpoints.save(grant, Progress(9, 9), durable=True)
    for _ in range(2):
        grant = grant.rewound()
        await world.checkpoints.take_back(grant, Progress(5, 5))
        assert await world.checkpoints.load(grant) == Progress(5, 5)
    boundary = await world.boundaries.boundary(grant)
    assert (boundary.until, boundary.side_effects) == (4, False)
    await world.retry_parked(grant.key)
    assert [each.position for each in await world.parking.to_retry(grant)] == [6], "what is parked stays so"


async def test_a_lower_checkpoint_counts_in_another_incarnation_of_the_stream(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5, stream_id=1))
    await world.checkpoints.save(grant, Progress(2, stream_id=2))
    assert await world.checkpoints.load(grant) == Progress(2, stream_id=2)


async def test_only_a_rewind_lowers_a_checkpoint(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5, 9, 1))
    rewound = grant.rewound()
    await world.checkpoints.rewind(rewound, Progress(2))
    assert await world.checkpoints.load(rewound) == Progress(2)
    await world.checkpoints.save(rewound, Progress(4))
    assert await world.checkpoints.load(rewound) == Progress(4)


@pytest.mark.parametrize("write", ["save", "save durably", "load", "park"])
@pytest.mark.parametrize("back", ["rewind", "take_back"])
async def test_what_was_sent_before_a_checkpoint_fell_and_comes_after_it_changes_nothing(
    world: World, back: str, write: str
) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5))
    await getattr(world.checkpoints, back)(grant.rewound(), Progress(2))
    with pytest.raises(StaleEpoch):
        await WRITES[write](world.checkpoints, grant)
    with pytest.raises(StaleEpoch):
        await getattr(world.checkpoints, back)(grant.rewound(), Progress(1))
    assert await world.checkpoints.load(grant.rewound()) == Progress(2)
    assert await world.checkpoints.parked_keys(grant) == set()


@pytest.mark.parametrize("write", ["report", "report consumers", "parked keys"])
async def test_what_only_asks_or_tells_outlives_a_rewind(world: World, write: str) -> None:
    grant = await granted(world)
    await world.checkpoints.rewind(grant.rewound(), Progress(2))
    await WRITES[write](world.checkpoints, grant)


async def test_a_try_to_rewind_that_is_late_changes_nothing(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5))
    late, again = grant.rewound(), grant.rewound().rewound()
    await world.checkpoints.rewind(again, Progress(2))
    await world.checkpoints.save(again, Progress(4))
    for stale in (late, again):
        with pytest.raises(StaleEpoch):
            await world.checkpoints.rewind(stale, Progress(1))
    assert await world.checkpoints.load(again) == Progress(4)


async def test_a_rewind_that_was_made_though_nobody_heard_of_it_can_be_made_again(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.save(grant, Progress(5))
    first, second = grant.rewound(), grant.rewound().rewound()
    await world.checkpoints.rewind(first, Progress(2))
    await world.checkpoints.rewind(second, Progress(2))
    await world.checkpoints.save(second, Progress(4))
    assert await world.checkpoints.load(second) == Progress(4)


async def test_the_next_grant_counts_its_rewinds_anew(world: World) -> None:
    keys = await world.keys(1)
    leases = await world.owner("one")
    (old,) = await leases.claim(keys)
    await world.checkpoints.save(old, Progress(5))
    old = old.rewound()
    await world.checkpoints.rewind(old, Progress(2))
    (new,) = await leases.claim(keys)
    assert (new.rewinds, new.progress) == (0, Progress(2))
    await world.checkpoints.save(new, Progress(3))
    for stale in (old, old.rewound()):
        with pytest.raises(StaleEpoch):
            await world.checkpoints.save(stale, Progress(9))
        with pytest.raises(StaleEpoch):
            await world.checkpoints.rewind(stale.rewound(), Progress(0))
    assert await world.checkpoints.load(new) == Progress(3)


async def test_a_save_may_be_repeated(world: World) -> None:
    grant = await granted(world)
    for _ in range(3):
        await world.checkpoints.save(grant, Progress(5, 9, 1))
    assert await world.checkpoints.load(grant) == Progress(5, 9, 1)


async def test_the_keys_of_parked_events_are_told_to_every_later_owner(world: World) -> None:
    keys = await world.keys(1)
    one, two = await world.owner("one"), await world.owner("two")
    (grant,) = await one.claim(keys)
    assert await world.checkpoints.parked_keys(grant) == set()
    await world.checkpoints.park(grant, [parked(3, "a"), parked(4, "b"), parked(5, "a", "behind"), parked(6, None)])
    await world.checkpoints.park(grant, [parked(3, "a")])
    await one.release([grant])
    (later,) = await two.claim(keys)
    assert await world.checkpoints.parked_keys(later) == {"a", "b"}


async def test_a_save_that_was_given_up_changes_nothing_after_the_one_that_was_made_since(world: World) -> None:
    grant = await granted(world)
    late, made = grant.numbered(1), grant.numbered(2)
    await world.checkpoints.save(made, Progress(5, 9, 2))
    await world.checkpoints.save(late, Progress(5, 5, 0, stream_id=3))
    assert await world.checkpoints.load(grant) == Progress(5, 9, 2)
    await world.checkpoints.save(made.numbered(3), Progress(5, 5, 0))
    assert await world.checkpoints.load(grant) == Progress(5, 5, 0)


@pytest.mark.parametrize("write", ["park", "report"])
async def test_a_write_that_was_given_up_is_refused_after_the_one_that_was_made_since(world: World, write: str) -> None:
    grant = await granted(world)
    for number in (1, 3, 3):
        await WRITES[write](world.checkpoints, grant.numbered(number))
    with pytest.raises(StaleEpoch):
        await WRITES[write](world.checkpoints, grant.numbered(2))


async def test_writes_of_different_kinds_may_overtake_one_another(world: World) -> None:
    grant = await granted(world)
    for number, write in ((4, "report"), (3, "park"), (2, "save")):
        await WRITES[write](world.checkpoints, grant.numbered(number))
    assert await world.checkpoints.load(grant) == Progress(9)
    assert await world.checkpoints.parked_keys(grant) == {"k"}


async def test_the_next_grant_numbers_its_writes_anew(world: World) -> None:
    keys = await world.keys(1)
    leases = await world.owner("one")
    (old,) = await leases.claim(keys)
    for write in ("save", "park", "report"):
        await WRITES[write](world.checkpoints, old.numbered(100))
    (new,) = await leases.claim(keys)
    for write in ("save", "park", "report"):
        await WRITES[write](world.checkpoints, new.numbered(1))


async def test_a_stop_outlives_its_owner_until_one_goes_on(world: World) -> None:
    leases = await world.owner("one")
    keys = await world.keys(1)
    (grant,) = await leases.claim(keys)
    assert await world.checkpoints.halted(grant) is None
    await world.checkpoints.halt(grant, 1, Halt("failed", "no \0customer"))
    await leases.release([grant])
    (later,) = await (await world.owner("two")).claim(keys)
    halt = await world.checkpoints.halted(later)
    assert halt is not None
    assert (halt.phase, (halt.reason or "").replace("\0", "")) == ("failed", "no customer")
    await world.checkpoints.halt(later, 1, None)
    assert await world.checkpoints.halted(later) is None


@pytest.mark.parametrize("words", ["no \0customer", "no \ud800customer"])
async def test_words_that_no_text_can_hold_stop_nothing(world: World, words: str) -> None:
    """An exception may say anything; what can be kept of it is."""
    grant = await granted(world)
    await world.checkpoints.report(grant.numbered(1), "stuck", words)
    await world.checkpoints.halt(grant, 1, Halt("failed", words))
    await world.checkpoints.park(grant.numbered(1), [ParkedEvent(event(5), "k", "failed", words, 1)])
    halt = await world.checkpoints.halted(grant)
    assert halt is not None
    assert (halt.reason or "").endswith("customer")
    assert await world.checkpoints.parked_keys(grant) == {"k"}


async def test_what_was_said_of_a_stop_and_comes_late_changes_nothing(world: World) -> None:
    grant = await granted(world)
    await world.checkpoints.halt(grant, 2, None)
    await world.checkpoints.halt(grant, 1, Halt("paused", "breaker"))
    assert await world.checkpoints.halted(grant) is None
    await world.checkpoints.halt(grant, 3, Halt("paused", "breaker again"))
    await world.checkpoints.halt(grant, 3, Halt("paused", "breaker again"))
    await world.checkpoints.halt(grant, 2, None)
    halt = await world.checkpoints.halted(grant)
    assert halt is not None
    assert halt.reason == "breaker again"
