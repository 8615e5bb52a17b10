"""Why a partition has no owner, as far as the database and the hosts that are alive can tell.

Decides nothing: it explains what the plan does with the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwater.cluster.plan import HostFacts, has
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
    able = [host for host in hosts if has(host, wants.resources, wants.labels)]
    if not able:
        return f"{NOBODY}: {_what_is_missing(wants, hosts)}"
    if all(host.draining for host in able):
        return f"{NOBODY}: {', '.join(sorted({host.node for host in able}))} could, and hands over all that it has"
    chosen = next((host.node for host in able if host.host == state.wanted_owner), None)
    if chosen is None:
        return f"{NOBODY}: it has not been given to a node yet"
    needs = _and([_amount(name, amount) for name, amount in wants.resources])
    waits = f", and waits for {needs} while others use it" if needs else ""
    return f"{NOBODY}: {chosen} makes its handler ready{waits}"


def _what_is_missing(wants: SubscriptionOptions, hosts: Sequence[HostFacts]) -> str:
    missing = [
        f"label {name}={value}" for name, value in wants.labels if not any(_is(h.labels, name, value) for h in hosts)
    ]
    for name, amount in wants.resources:
        most = max(host.resources.get(name, 0.0) for host in hosts)
        if most < amount:
            missing.append(f"{_amount(name, amount)}{f' (at most {most:g})' if most else ''}")
    without_ray = not any(host.labels or host.resources for host in hosts)
    hint = "; hosts without Ray have neither labels nor resources" if without_ray else ""
    if missing:
        return f"no node has {_or(missing)}{hint}"
    asked = [f"label {name}={value}" for name, value in wants.labels]
    return f"no node has all of {_and([*asked, *(_amount(name, amount) for name, amount in wants.resources)])}"


def _is(labels: Mapping[str, str], name: str, value: str) -> bool:
    return labels.get(name) == value


def _amount(resource: str, amount: float) -> str:
    return f"{amount:g} {resource}"


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)


def _and(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
