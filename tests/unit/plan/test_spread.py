"""Placement of what is kept apart: spread to one over the nodes, with moves that are bounded and come to an end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.cluster.plan import HostFacts, PartitionFacts, plan

from .test_plan import World, host


class Slow(World):
    """Hosts that take their time, each handler its own, and lag that is another one at each look."""

    def __init__(self, hosts: Iterable[HostFacts], partitions: Iterable[PartitionFacts], seed: int) -> None:
        super().__init__(0, 0)
        self.hosts = {each.host: each for each in hosts}
        self.partitions = {p.lock_id: p for p in partitions}
        self.random = random.Random(seed)
        self.moves = 0

    def obey(self) -> None:
        before = dict(self.partitions)
        super().obey()
        for lock_id, partition in self.partitions.items():
            was = before[lock_id]
            getting_ready = partition.wanted_standby is not None and partition.wanted_standby != was.standby
            if getting_ready and self.random.random() < 0.5:
                partition = replace(partition, standby=was.standby)
            self.moves += partition.owner != was.owner and was.owner in self.hosts
            self.partitions[lock_id] = replace(partition, lag=self.random.randrange(1000))

    def settle(self, rounds: int = 400) -> None:
        for _ in range(rounds):
            done = self.plan() == 0 and all(p.standby == p.wanted_standby for p in self.partitions.values())
            if done:
                return
            self.obey()
        raise AssertionError("the plan never comes to rest")

    def spread(self) -> dict[str, int]:
        """Return by how much the nodes differ in each group."""
        alive = {facts.node for facts in self.hosts.values() if not facts.draining}
        groups: dict[str, Counter[str]] = {}
        for partition in self.partitions.values():
            group = groups.setdefault(partition.apart or partition.subscription, Counter(dict.fromkeys(alive, 0)))
            group[self.hosts[partition.owner or ""].node] += 1
        return {group: max(counts.values()) - min(counts.values()) for group, counts in groups.items()}


def facts(number: int, group: int) -> PartitionFacts:
    if group >= 8:
        return PartitionFacts(lock_id=number, subscription=f"single-{number}", apart=f"word-{group}")
    return PartitionFacts(lock_id=number, subscription=f"s-{group}")


@given(
    st.integers(2, 5),
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.lists(st.tuples(st.sampled_from(["join", "die", "die and return", "drain"]), st.integers(0, 7)), max_size=5),
    st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_partitions_of_a_subscription_and_words_are_spread_to_one_after_whatever_happens(
    hosts: int, groups: list[int], changes: list[tuple[str, int]], seed: int
) -> None:
    world = Slow(map(host, range(hosts)), (facts(n, group) for n, group in enumerate(groups)), seed)
    world.settle()
    several = sum(count > 1 for count in Counter(groups).values())
    for kind, number in changes:
        name = f"host-{number}"
        alive = [h for h, each in world.hosts.items() if not each.draining]
        before, share = world.moves, len(groups) // len(alive) + 1
        if kind == "join" and name not in world.hosts:
            world.hosts[name] = host(number)
        elif kind == "drain" and name in alive and len(alive) > 1:
            world.hosts[name] = replace(world.hosts[name], draining=True)
        elif kind.startswith("die") and name in alive and len(alive) > 1:
            del world.hosts[name]
            world.obey()
            if "return" in kind:
                world.settle()
                world.hosts[name] = host(number)
        world.settle()
        world.check()
        assert max(world.spread().values()) <= 1
        # What a host gets that joins; what one has that leaves, once more for balance, and the share of one that
        # returns; and a few exchanges of two for each group that is to be kept apart.
        times = {"join": 1, "drain": 2, "die": 1, "die and return": 2}[kind]
        assert world.moves - before <= times * share + 4 * several


def placed(number: int, subscription: str, owner: str, standby: str) -> PartitionFacts:
    return PartitionFacts(
        lock_id=number,
        subscription=subscription,
        owner=owner,
        wanted_owner=owner,
        standby=standby,
        wanted_standby=standby,
    )


def test_partitions_that_piled_up_beside_others_are_exchanged_for_them() -> None:
    piled = [placed(n, "piled", "host-0", "host-2") for n in range(4)]
    others = [placed(n, f"s-{n}", f"host-{1 + n % 2}", "host-0") for n in range(4, 12)]
    world = Slow(map(host, range(3)), [*piled, *others], 1)
    world.settle()
    world.check()
    assert world.spread()["piled"] == 1
    assert world.moves == 4, "two exchanges"


def test_two_that_change_places_are_made_owners_in_one_plan() -> None:
    piled = {n: placed(n, "piled", "host-0", "host-1") for n in (0, 1)}
    others = {n: placed(n, f"s-{n}", "host-1", "host-2") for n in (2, 3)}
    hosts = [host(0), host(1), host(2, draining=True)]
    first = {a.lock_id: a for a in plan([*piled.values(), *others.values()], hosts)}
    assert [a for a in first.values() if a.owner == "host-1" and a.lock_id in piled] == [], "no other one is ready"
    assert sum(first[n].standby == "host-0" and first[n].owner == "host-1" for n in others) >= 1
    ready = {n: replace(others[n], standby="host-0", wanted_standby="host-0") for n in others}
    second = {a.lock_id: a for a in plan([*piled.values(), *ready.values()], hosts)}
    assert sum(second[n].owner == "host-1" for n in piled if n in second) == 1
    assert sum(second[n].owner == "host-0" for n in others if n in second) == 1


def test_a_takeover_does_not_land_beside_its_kin_where_another_node_could_stand_by() -> None:
    world = Slow(map(host, range(4)), [PartitionFacts(lock_id=n, subscription=f"s-{n}", apart="x") for n in (0, 1)], 2)
    world.settle()
    first, second = world.partitions[0], world.partitions[1]
    assert first.owner != second.owner
    assert first.standby != second.owner
    assert second.standby != first.owner
    del world.hosts[first.owner or ""]
    world.obey()
    assert world.partitions[0].owner != world.partitions[1].owner


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 40))
def test_nodes_with_several_hosts_get_no_more_than_others_and_share_it_between_them(
    hosts: list[int], partitions: int
) -> None:
    named = [
        HostFacts(host=f"host-{node}-{each}", node=f"node-{node}")
        for node, count in enumerate(hosts)
        for each in range(count)
    ]
    world = Slow(named, (facts(n, n % 5) for n in range(partitions)), 3)
    world.settle()
    on_host = Counter(dict.fromkeys(world.hosts, 0))
    on_host.update(p.owner for p in world.partitions.values() if p.owner)
    on_node = Counter({h.node: 0 for h in named})
    for name, count in on_host.items():
        on_node[world.hosts[name].node] += count
    assert max(on_node.values()) - min(on_node.values()) <= 1
    for node in on_node:
        shares = [count for name, count in on_host.items() if world.hosts[name].node == node]
        assert max(shares) - min(shares) <= 1
    assert max(world.spread().values(), default=0) <= 1


def test_two_that_are_to_be_apart_are_not_both_on_a_node_that_has_two_hosts() -> None:
    named = [HostFacts(host=name, node=name[0]) for name in ("a1", "a2", "b1")]
    world = Slow(named, [PartitionFacts(lock_id=n, subscription=f"s-{n}", apart="x") for n in (0, 1)], 4)
    world.settle()
    assert {(p.owner or "")[0] for p in world.partitions.values()} == {"a", "b"}


def test_hot_ones_that_share_a_node_while_another_has_none_are_spread() -> None:
    world = Slow(map(host, range(2)), [PartitionFacts(lock_id=n, subscription=f"s-{n}") for n in range(6)], 5)
    world.settle()
    here = [n for n, p in world.partitions.items() if p.owner == "host-0"]
    for n in here[:2]:
        world.partitions[n] = replace(world.partitions[n], hot=True)
    before = world.moves
    world.settle()
    world.check()
    assert Counter(p.owner for p in world.partitions.values() if p.hot) == {"host-0": 1, "host-1": 1}
    assert world.moves - before == 2
