"""Placement where a host cannot run something, or has no room for it: another one gets it, and nothing flaps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.cluster.plan import HostFacts, PartitionFacts, plan

from .test_plan import World, host


class Troubled(World):
    """Hosts of which some cannot load some handlers: they say so when they have tried, and forget it after a while."""

    def __init__(self, hosts: int, partitions: int, cannot: set[tuple[str, int]], forget: int = 10**6) -> None:
        super().__init__(hosts, partitions)
        self.cannot = cannot
        self.forget = forget
        self.round = 0
        self.told: dict[tuple[str, int], int] = {}
        self.prepared: Counter[tuple[str, int]] = Counter()

    def obey(self) -> None:
        self.round += 1
        before = dict(self.partitions)
        super().obey()
        for lock_id, partition in self.partitions.items():
            was = before[lock_id]
            for name in {partition.wanted_owner, partition.wanted_standby} - {None}:
                if (name, lock_id) in self.cannot and name in self.hosts:
                    self.prepared[name or "", lock_id] += (name, lock_id) not in self.told
                    self.told[name or "", lock_id] = self.round
            standby = partition.standby
            if (standby, lock_id) in self.cannot:
                standby = was.standby if was.standby in self.hosts and was.standby != standby else None
            self.partitions[lock_id] = replace(partition, standby=standby)
        self.told = {key: at for key, at in self.told.items() if key in self.cannot}
        # What a host does not have any more it forgets in time: it is tried again, for a new version may be there.
        here = {(h, n) for n, p in self.partitions.items() for h in (p.wanted_owner, p.wanted_standby)}
        for key in [k for k, at in self.told.items() if k not in here and self.round - at > self.forget]:
            del self.told[key]
        self.hosts = {
            name: replace(each, troubles={n: "it cannot be imported" for h, n in self.told if h == name})
            for name, each in self.hosts.items()
        }

    def settle(self, rounds: int = 400) -> None:
        for _ in range(rounds):
            self.plan()
            before = self.partitions
            self.obey()
            if self.partitions == before and self.plan() == 0:
                return
        raise AssertionError("the plan never comes to rest")


def test_what_its_owner_cannot_run_goes_on_at_the_standby_that_is_ready() -> None:
    world = Troubled(2, 8, {("host-0", n) for n in range(8)})
    world.settle()
    assert {p.owner for p in world.partitions.values()} == {"host-1"}


def test_what_its_owner_cannot_run_stays_with_it_until_another_one_is_ready() -> None:
    partition = PartitionFacts(lock_id=1, subscription="s", owner="host-0", wanted_owner="host-0")
    hosts = [host(0, troubles={1: "it cannot be imported"}), host(1)]
    [first] = plan([partition], hosts)
    assert (first.owner, first.standby) == ("host-0", "host-1")
    [second] = plan([replace(partition, wanted_standby="host-1", standby="host-1")], hosts)
    assert second.owner == "host-1"


@given(
    st.integers(1, 5),
    st.integers(1, 20),
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 19)), max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_each_is_owned_by_a_host_that_can_run_it_if_there_is_one_and_nothing_flaps(
    hosts: int, partitions: int, cannot: set[tuple[int, int]]
) -> None:
    world = Troubled(hosts, partitions, {(f"host-{h}", n) for h, n in cannot})
    world.settle()
    for lock_id, partition in world.partitions.items():
        able = [h for h in world.hosts if (h, lock_id) not in world.cannot]
        assert partition.owner in (able or world.hosts)
    assert max(world.prepared.values(), default=0) <= 1, "tried once, until it is forgotten"
    # Each is granted once, again when its first owner cannot run it, and once more for the balance of what is left.
    assert world.grants <= 3 * partitions


def test_where_nobody_can_run_it_it_stays_where_it_is_however_often_the_others_are_tried_again() -> None:
    world = Troubled(3, 6, {(f"host-{h}", n) for h in range(3) for n in range(6)}, forget=3)
    for _ in range(20):
        world.plan()
        world.obey()
    owners, grants = {n: p.owner for n, p in world.partitions.items()}, world.grants
    for _ in range(50):
        world.plan()
        world.obey()
    assert {n: p.owner for n, p in world.partitions.items()} == owners
    assert world.grants == grants


def test_a_host_that_can_run_it_again_gets_its_share_back() -> None:
    world = Troubled(2, 8, {("host-0", n) for n in range(8)}, forget=3)
    world.settle()
    world.cannot.clear()
    for _ in range(30):
        world.plan()
        world.obey()
    world.check()


# Room


def gpu(number: int, amount: float = 1.0) -> PartitionFacts:
    return PartitionFacts(lock_id=number, subscription=f"gpu-{number}", needs=(("GPU", amount),))


def with_gpus(number: int, amount: float) -> HostFacts:
    return host(number, resources={"GPU": amount})


def test_what_needs_a_resource_goes_where_it_is_free_and_the_rest_to_nobody() -> None:
    world = World(0, 0)
    world.hosts = {h.host: h for h in (with_gpus(0, 1.0), with_gpus(1, 2.0), host(2))}
    world.partitions = {n: gpu(n) for n in range(5)}
    world.settle()
    assert Counter(p.owner for p in world.partitions.values()) == {"host-0": 1, "host-1": 2, None: 2}
    world.hosts["host-3"] = with_gpus(3, 2.0)
    world.settle()
    assert Counter(p.owner for p in world.partitions.values()) == {"host-0": 1, "host-1": 2, "host-3": 2}


def test_tenths_of_a_resource_make_up_a_whole_one() -> None:
    partitions = [gpu(n, 0.1) for n in range(11)]
    owners = Counter(a.owner for a in plan(partitions, [with_gpus(0, 1.0)]))
    assert owners == {"host-0": 10}


def test_a_standby_takes_what_it_needs_and_makes_room_for_an_owner() -> None:
    world = World(0, 0)
    world.hosts = {h.host: h for h in (with_gpus(0, 1.0), with_gpus(1, 1.0))}
    world.partitions = {0: gpu(0)}
    world.settle()
    assert world.partitions[0].standby is not None
    world.partitions[1] = gpu(1)
    world.settle()
    assert {p.owner for p in world.partitions.values()} == {"host-0", "host-1"}
    assert [p.standby for p in world.partitions.values()] == [None, None]


def test_what_runs_stays_where_there_is_not_room_for_all() -> None:
    running = replace(gpu(2), owner="host-0", wanted_owner="host-0", granted_at=1.0)
    waiting = replace(gpu(1), wanted_owner="host-0")
    [assignment] = plan([waiting, running], [with_gpus(0, 1.0)])
    assert (assignment.lock_id, assignment.owner) == (1, None)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=15),
    st.lists(st.integers(0, 3), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_no_host_is_given_more_than_it_has_and_it_comes_to_rest(
    gpus: list[int], needs: list[float], deaths: list[int]
) -> None:
    world = World(0, 0)
    world.hosts = {f"host-{n}": with_gpus(n, float(count)) for n, count in enumerate(gpus)}
    world.partitions = {
        n: gpu(n, amount) if amount else PartitionFacts(lock_id=n, subscription=f"s-{n}")
        for n, amount in enumerate(needs)
    }
    for death in [None, *deaths]:
        if death is not None and len(world.hosts) > 1:
            world.hosts.pop(f"host-{death}", None)
            world.obey()
        world.settle()
        taken: Counter[str] = Counter()
        for partition in world.partitions.values():
            for name, amount in partition.needs:
                assert name == "GPU"
                for place in (partition.owner, partition.standby):
                    if place is not None:
                        taken[place] += amount  # type: ignore[assignment]  # fractions of GPUs
        for name, each in world.hosts.items():
            assert taken[name] <= each.resources["GPU"]
        for partition in world.partitions.values():
            if partition.owner is None:
                [(_, amount)] = partition.needs
                owned = {
                    h: sum(dict(p.needs).get("GPU", 0.0) for p in world.partitions.values() if p.owner == h)
                    for h in world.hosts
                }
                assert all(owned[h] + amount > each.resources["GPU"] for h, each in world.hosts.items())
