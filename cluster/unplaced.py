"""Why a partition has no owner, or cannot be moved, as far as the database and the hosts that are alive can tell.

Decides nothing: it explains what the plan does with the same facts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from headwater.cluster.plan import HostFacts, PartitionFacts, has
from headwater.cluster.tally import ROUNDING
from headwater.storage.errors import HeadwaterError
from headwater.storage.registry import PartitionState
from headwater.subscriptions.encoding import decode_placement
from headwater.subscriptions.options import SubscriptionOptions

NOBODY = "no host holds its lease"


def why_unowned(state: PartitionState, hosts: Sequence[HostFacts]) -> str:
    """Say why nobody owns a partition that should run."""
    if not hosts:
        return f"{NOBODY}: no host is alive"
    try:
        wants = decode_placement(state.options)
    except HeadwaterError:  # then it may run anywhere
        wants = SubscriptionOptions()
    able = [host for host in hosts if has(host, wants.needs, wants.labels)]
    if not able:
        return f"{NOBODY}: {_what_is_missing(wants, hosts)}"
    if all(host.draining for host in able):
        return f"{NOBODY}: {', '.join(sorted({host.node for host in able}))} could, and hands over all that it has"
    chosen = next((host for host in able if host.host == state.wanted_owner), None)
    needs = _and([_amount(name, amount) for name, amount in wants.needs])
    if chosen is None:
        taken = f": {needs} may be taken by others on {_and(sorted({host.node for host in able}))}" if needs else ""
        return f"{NOBODY}: it has not been given to a node yet{taken}"
    if state.key.lock_id in chosen.troubles:
        return f"{NOBODY}: on {chosen.node} {chosen.troubles[state.key.lock_id]}"
    waits = f", and waits for {needs} while others use it" if needs else ""
    return f"{NOBODY}: {chosen.node} makes its handler ready{waits}"


def why_not_there(
    moving: Sequence[PartitionFacts], node: str, partitions: Sequence[PartitionFacts], hosts: Sequence[HostFacts]
) -> str | None:
    """Say why partitions cannot all be moved to a node; None when they can, as far as is known."""
    there = [host for host in hosts if host.node == node]
    if not there:
        known = _and(sorted({host.node for host in hosts})) or "none"
        return f"no host is alive on a node {node!r}; there are {known}"
    there = [host for host in there if not host.draining]
    if not there:
        return f"{node} hands over all that it has"
    room = {host.host: Counter[str](host.resources) for host in there}
    leaving = {partition.lock_id for partition in moving}
    for partition in partitions:
        if partition.wanted_owner in room and partition.lock_id not in leaving:
            room[partition.wanted_owner].subtract(dict(partition.needs))
    for partition in moving:
        reason = _no_place(partition, node, there, room)
        if reason is not None:
            return reason
    return None


def _no_place(
    partition: PartitionFacts, node: str, there: Sequence[HostFacts], room: Mapping[str, Counter[str]]
) -> str | None:
    able = [host for host in there if has(host, partition.needs, partition.labels)]
    if not able:
        wanted = [f"label {name}={value}" for name, value in partition.labels]
        return f"{node} has not all of {_and([*wanted, *(_amount(*need) for need in partition.needs)])}"
    if all(partition.lock_id in host.troubles for host in able):
        return f"on {node} {able[0].troubles[partition.lock_id]}"
    for host in able:
        if all(room[host.host][name] + ROUNDING >= amount for name, amount in partition.needs):
            room[host.host].subtract(dict(partition.needs))
            return None
    return f"{_and([_amount(*need) for need in partition.needs])} on {node} is taken by others"


def _what_is_missing(wants: SubscriptionOptions, hosts: Sequence[HostFacts]) -> str:
    missing = [
        f"label {name}={value}" for name, value in wants.labels if not any(_is(h.labels, name, value) for h in hosts)
    ]
    for name, amount in wants.needs:
        most = max(host.resources.get(name, 0.0) for host in hosts)
        if most < amount:
            missing.append(f"{_amount(name, amount)}{f' (at most {most:g})' if most else ''}")
    without_ray = not any(host.labels or host.resources for host in hosts)
    hint = "; hosts without Ray have neither labels nor resources" if without_ray else ""
    if missing:
        return f"no node has {_or(missing)}{hint}"
    asked = [f"label {name}={value}" for name, value in wants.labels]
    return f"no node has all of {_and([*asked, *(_amount(name, amount) for name, amount in wants.needs)])}"


def _is(labels: Mapping[str, str], name: str, value: str) -> bool:
    return labels.get(name) == value


def _amount(resource: str, amount: float) -> str:
    return f"{amount:g} {resource}"


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)


def _and(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
