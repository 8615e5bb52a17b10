"""Placement: balanced to one, standbys elsewhere, bounded moves, and no flapping."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.cluster.plan import HostFacts, PartitionFacts, applied, plan


def host(number: int, **facts: object) -> HostFacts:
    return HostFacts(host=f"host-{number}", node=f"node-{number}", **facts)  # type: ignore[arg-type]


class World:
    """Hosts and partitions that obey their assignments, as the real ones do."""

    def __init__(self, hosts: int, partitions: int) -> None:
        self.hosts = {h.host: h for h in (host(n) for n in range(hosts))}
        self.partitions = {n: PartitionFacts(lock_id=n, subscription=f"s-{n % 7}") for n in range(partitions)}
        self.now = 0.0
        self.most_moving = 0
        self.grants = 0

    def plan(self, max_moves: int = 25) -> int:
        """Plan once and write the assignments down; returns how many there were."""
        assignments = plan(list(self.partitions.values()), list(self.hosts.values()), max_moves)
        for assignment in assignments:
            self.partitions[assignment.lock_id] = applied(self.partitions[assignment.lock_id], assignment)
        moving = [p for p in self.partitions.values() if p.owner in self.hosts and p.owner != p.wanted_owner]
        self.most_moving = max(self.most_moving, len(moving))
        return len(assignments)

    def obey(self) -> None:
        """Let hosts do what is wanted: release, claim, get ready."""
        self.now += 1
        for lock_id, partition in self.partitions.items():
            owner = partition.owner if partition.owner in self.hosts else None
            if partition.wanted_owner in self.hosts and owner != partition.wanted_owner:
                owner = partition.wanted_owner
            elif owner is None and partition.wanted_standby in self.hosts:
                owner = partition.wanted_standby
            granted = owner != partition.owner
            self.grants += granted
            ready = partition.wanted_standby if partition.wanted_standby in self.hosts else None
            self.partitions[lock_id] = replace(
                partition,
                owner=owner,
                standby=ready,
                granted_at=self.now if granted else partition.granted_at,
            )

    def settle(self, rounds: int = 400) -> None:
        for _ in range(rounds):
            if self.plan() == 0:
                return
            self.obey()
        raise AssertionError("the plan never comes to rest")

    def owned(self) -> Counter[str | None]:
        counts: Counter[str | None] = Counter({h: 0 for h, facts in self.hosts.items() if not facts.draining})
        counts.update(p.owner for p in self.partitions.values())
        return counts

    def check(self) -> None:
        counts = self.owned()
        assert set(counts) <= set(self.hosts)
        assert max(counts.values()) - min(counts.values()) <= 1
        if sum(not h.draining for h in self.hosts.values()) > 1:
            for partition in self.partitions.values():
                assert partition.owner is not None
                assert partition.standby is not None
                assert self.hosts[partition.standby].node != self.hosts[partition.owner].node


@given(st.integers(1, 6), st.integers(0, 60))
def test_a_cold_start_ends_balanced_with_a_standby_elsewhere(hosts: int, partitions: int) -> None:
    world = World(hosts, partitions)
    world.settle()
    world.check()
    assert world.grants == partitions


@given(
    st.integers(2, 5),
    st.integers(1, 60),
    st.lists(st.tuples(st.sampled_from(["join", "die", "drain"]), st.integers(0, 9)), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_after_joins_deaths_and_drains_it_comes_to_rest_balanced(
    hosts: int, partitions: int, changes: list[tuple[str, int]]
) -> None:
    world = World(hosts, partitions)
    world.settle()
    for kind, number in changes:
        name = f"host-{number}"
        alive = [h for h, facts in world.hosts.items() if not facts.draining]
        if kind == "join":
            world.hosts[name] = host(number)
        elif name in alive and len(alive) > 1:
            if kind == "die":
                del world.hosts[name]
                world.obey()
            else:
                world.hosts[name] = replace(world.hosts[name], draining=True)
        world.settle()
        world.check()


def test_a_join_moves_no_more_than_the_new_hosts_share() -> None:
    world = World(3, 60)
    world.settle()
    before = world.grants
    world.hosts["host-3"] = host(3)
    world.settle()
    assert world.grants - before == 15


def test_moves_for_balance_are_bounded() -> None:
    world = World(1, 200)
    world.settle()
    world.hosts["host-1"] = host(1)
    for _ in range(400):
        if world.plan(max_moves=10) == 0:
            break
        world.obey()
    assert 0 < world.most_moving <= 10
    world.check()


def test_a_takeover_is_accepted() -> None:
    world = World(3, 3)
    world.settle()
    partition = world.partitions[0]
    world.partitions[0] = replace(partition, owner=partition.wanted_standby)
    world.plan()
    assert world.partitions[0].wanted_owner == partition.wanted_standby


def test_an_owner_that_dies_while_its_standby_is_replaced_is_followed_by_the_one_that_is_ready() -> None:
    world = World(3, 3)
    world.settle()
    partition = world.partitions[0]
    preparing = next(h for h in world.hosts if h not in (partition.owner, partition.standby))
    world.partitions[0] = replace(partition, owner=None, wanted_standby=preparing)
    del world.hosts[partition.owner or ""]
    world.plan()
    assert world.partitions[0].wanted_owner == partition.standby
    assert world.partitions[0].wanted_standby == preparing


def test_what_a_ready_standby_is_about_to_take_over_is_not_given_to_another_host_for_balance() -> None:
    def facts(lock_id: int, owner: str, standby: str) -> PartitionFacts:
        partition = PartitionFacts(lock_id=lock_id, subscription=f"s-{lock_id}", owner=owner, standby=standby)
        return replace(partition, wanted_owner=owner, wanted_standby=standby)

    world = World(2, 0)
    orphans = {n: replace(facts(n, "host-2", "host-0"), owner=None) for n in (0, 1)}
    others = {n: facts(n, owner, "host-2") for n, owner in ((2, "host-0"), (3, "host-0"), (4, "host-1"))}
    world.partitions = orphans | others
    world.plan()
    assert {world.partitions[n].wanted_owner for n in orphans} == {"host-0"}
    world.obey()
    world.settle()
    world.check()


def test_a_standby_that_takes_over_while_it_is_replaced_is_left_where_it_is() -> None:
    world = World(3, 3)
    world.settle()
    partition = world.partitions[0]
    preparing = next(h for h in world.hosts if h not in (partition.owner, partition.standby))
    # The old owner has only lost its session, and is there again.
    world.partitions[0] = replace(partition, owner=partition.standby, wanted_standby=preparing)
    world.plan()
    assert world.partitions[0].wanted_owner == partition.standby


def test_a_death_costs_only_the_grants_of_what_it_owned() -> None:
    world = World(3, 30)
    world.settle()
    before = world.grants
    del world.hosts["host-0"]
    world.obey()
    world.settle()
    assert world.grants - before == 10


def test_a_target_is_made_standby_before_it_is_made_owner() -> None:
    world = World(3, 3)
    world.settle()
    partition = world.partitions[0]
    target = next(h for h in world.hosts if h not in (partition.owner, partition.standby))
    world.partitions[0] = replace(partition, target=world.hosts[target].node)
    world.plan()
    assert world.partitions[0].wanted_owner == partition.owner
    assert world.partitions[0].wanted_standby == target
    world.obey()
    world.plan()
    assert world.partitions[0].wanted_owner == target
    assert world.partitions[0].wanted_standby != partition.owner


def test_what_needs_a_resource_goes_only_where_it_is() -> None:
    hosts = [host(0), host(1, resources={"GPU": 5.0}), host(2)]
    partitions = [PartitionFacts(lock_id=n, subscription="s", needs=(("GPU", 1.0),)) for n in range(5)]
    assert {a.owner for a in plan(partitions, hosts)} == {"host-1"}


def test_what_wants_a_label_goes_only_where_it_is_and_stands_by_there_too() -> None:
    hosts = [host(n, labels={"zone": "a" if n % 2 else "b"}) for n in range(4)]
    partitions = [PartitionFacts(lock_id=n, subscription=f"s-{n}", labels=(("zone", "a"),)) for n in range(6)]
    assignments = plan(partitions, hosts)
    assert Counter(a.owner for a in assignments) == {"host-1": 3, "host-3": 3}
    assert {a.standby for a in assignments} == {"host-1", "host-3"}


def test_what_no_host_can_have_is_given_to_nobody() -> None:
    assert plan([PartitionFacts(lock_id=1, subscription="s", labels=(("zone", "a"),))], [host(0)]) == []


def test_subscriptions_that_are_to_be_apart_are_on_different_nodes_and_the_balance_is_kept() -> None:
    world = World(3, 0)
    world.partitions = {n: PartitionFacts(lock_id=n, subscription=f"s-{n}", apart=f"word-{n % 3}") for n in range(9)}
    world.settle()
    world.check()
    for word in ("word-0", "word-1", "word-2"):
        assert len({p.owner for p in world.partitions.values() if p.apart == word}) == 3


def test_a_host_that_joins_takes_its_share_of_the_lag() -> None:
    world = World(2, 0)
    world.partitions = {
        n: PartitionFacts(lock_id=n, subscription=f"s-{n}", lag=1_000 if n in (0, 1, 2, 3) else 0) for n in range(12)
    }
    world.settle()
    world.hosts["host-2"] = host(2)
    world.settle()
    world.check()
    lag = {h: sum(p.lag for p in world.partitions.values() if p.owner == h) for h in world.hosts}
    assert sorted(lag.values()) == [1_000, 1_000, 2_000]


def test_partitions_of_one_subscription_spread_over_the_nodes() -> None:
    world = World(3, 0)
    world.partitions = {n: PartitionFacts(lock_id=n, subscription=f"s-{n // 3}") for n in range(9)}
    world.settle()
    for subscription in ("s-0", "s-1", "s-2"):
        assert len({p.owner for p in world.partitions.values() if p.subscription == subscription}) == 3


def test_without_hosts_nothing_is_decided() -> None:
    partition = PartitionFacts(lock_id=1, subscription="s")
    assigned = PartitionFacts(lock_id=2, subscription="s", wanted_owner="host-1", wanted_standby="host-2")
    assert plan([partition, assigned], []) == []
