"""What can be chosen for the processes that run subscriptions: each option once, with its default and its meaning.

Values only, picklable: they travel to every node.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from headwater.storage.options import StoreOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Where the store is, and how the hosts and the supervisor keep time."""

    store: StoreOptions
    """Where the events are, and where hints of appends come from."""
    lease: timedelta = timedelta(seconds=3)
    """How long an owner that is frozen or cut off keeps its partitions from others."""
    heartbeat: timedelta = timedelta(milliseconds=500)
    """How often a host shows the server that it is there; well below the lease."""
    poll_interval: timedelta = timedelta(seconds=1)
    """How often the head is asked for when no hint comes."""
    claim_interval: timedelta = timedelta(milliseconds=100)
    """How often a host tries to get what it should own or stands by for: the wait of a takeover."""
    assignment_interval: timedelta = timedelta(milliseconds=250)
    """How often a host asks what it should run."""
    plan_interval: timedelta = timedelta(milliseconds=400)
    """How often the supervisor compares what is wanted with what is there."""
    max_moves: int = 25
    """How many partitions may be on the move at a time, for balance."""
    pool_size: int = 4
    """How many connections each host reads and writes with, beside the one that holds its leases."""
    import_from: tuple[str, ...] = ()
    """Folders that handlers are imported from, beside what is installed."""

    @property
    def host_store(self) -> StoreOptions:
        """How a host opens the store."""
        return replace(self.store, pool_size=self.pool_size, application_name="headwater host")

    @property
    def client_store(self) -> StoreOptions:
        """How an operator opens the store."""
        return replace(self.store, pool_size=2, application_name="headwater client")

    @property
    def supervisor_store(self) -> StoreOptions:
        """How a supervisor opens the store."""
        return replace(self.store, pool_size=1, application_name="headwater supervisor")

    @property
    def deployment(self) -> str:
        """A short name for this store, so that two deployments on one Ray cluster stay out of each other's way."""
        return hashlib.sha256(f"{self.store.url} {self.store.schema}".encode()).hexdigest()[:10]


def import_folders() -> tuple[str, ...]:
    """Return where this program imports its own modules from: its script's folder, and the current one."""
    return tuple(dict.fromkeys(str(Path(folder).resolve()) for folder in (sys.path[0], "") if Path(folder).is_dir()))
