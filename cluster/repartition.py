"""Another number of partitions, decided purely: from where the old set was let go, where each new one begins.

Never does I/O. Nothing is waited for but the end of the old owners: by what some of them were ahead of others
stands in the marks (``subscriptions.core.seam``), and the new owners leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from headwater.storage.leases import Progress
from headwater.storage.registry import PartitionSet
from headwater.subscriptions.core.seam import Marks


def successor(old: PartitionSet, to: int, partition_by: str | None) -> PartitionSet:
    """Return the set of ``to`` partitions, split by ``partition_by``, that goes on where ``old`` stopped.

    No event that is settled is delivered again, and none that is not is left out; what may have reached a handler whose
    owner died is suspect with the new owners, too.
    """
    newest = max((each.stream_id for each in old.progress if each.stream_id is not None), default=None)
    outdated = [each.stream_id not in (None, newest) for each in old.progress]
    # Who still counts in an older incarnation of the source has settled nothing of this one.
    at = [
        replace(Progress(0) if past else each, stream_id=newest)
        for past, each in zip(outdated, old.progress, strict=True)
    ]
    marks = [Marks.from_json(each) for each in old.seam or []]
    ends = max((each.end for each in marks), default=0)
    left = Marks(
        old.partition_by,
        [each.checkpoint for each in at],
        [
            seamed and not past and each.checkpoint < ends
            for seamed, past, each in zip(old.seamed, outdated, at, strict=True)
        ],
    )
    # A key's share modulo the greatest common divisor stays what it was: with 2 of 4 each new one follows two old ones.
    step = math.gcd(len(at), to) if partition_by == old.partition_by else 1
    progress, seamed = [], []
    for number in range(to):
        before = range(number % step, len(at), step)
        progress.append(_follow([at[each] for each in before]))
        uneven = len({at[each].checkpoint for each in before}) > 1
        seamed.append(uneven or any(left.goes_on[each] for each in before))
    seam = [left, *(marks if any(left.goes_on) else [])]
    return PartitionSet(partition_by, progress, seamed, [each.to_json() for each in seam] if any(seamed) else None)


def _follow(before: Sequence[Progress]) -> Progress:
    start = min(each.checkpoint for each in before)
    begun = [each for each in before if each.in_flight_to > each.checkpoint]
    return Progress(
        checkpoint=start,
        in_flight_to=max((each.in_flight_to for each in begun), default=start),
        attempt=max((each.attempt for each in begun), default=0),
        stream_id=before[0].stream_id,
    )
