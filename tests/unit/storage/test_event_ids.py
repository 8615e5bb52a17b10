"""Event ids: of the right kind, in the order of time, and never the same twice, also not after a fork."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from itertools import groupby

from headwater.storage.model import new_event_id


def test_an_id_is_a_version_7_uuid_of_now() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_event_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert {id.version for id in ids} == {7}
    assert {id.variant for id in ids} == {uuid.RFC_4122}
    assert all(before <= id.int >> 80 <= after for id in ids)
    assert len(set(ids)) == 1000


FORKING = """
import os
from headwater.storage.model import new_event_id

child = os.fork()
ids = [new_event_id() for _ in range(100)]
if child:
    os.waitpid(child, 0)  # one after the other: what two write at once into one pipe may be torn
print(*ids, sep="\\n", flush=True)
"""


def test_a_forked_process_makes_ids_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)
    random_bits = {uuid.UUID(line).int & (1 << 62) - 1 for line in done.stdout.split()}
    assert len(random_bits) == 200


def test_ids_of_one_millisecond_sort_as_they_were_made() -> None:
    ids = [new_event_id() for _ in range(10_000)]
    for _, same in groupby(ids, lambda made: made.int >> 80):
        together = list(same)
        assert together == sorted(together)
