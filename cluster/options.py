"""What can be chosen for the processes that run subscriptions: each option once, with its default and its meaning.

Values only, picklable: they travel to every node.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from headwater.storage.errors import ConfigurationError
from headwater.storage.options import StoreOptions
from headwater.subscriptions.app import App

INTERVALS: Final = ("stall", "poll_interval", "claim_interval", "assignment_interval", "plan_interval")
SHORTEST: Final = timedelta(milliseconds=1)
LONGEST: Final = timedelta(hours=1)
MOST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Where the store is, and how the hosts and the supervisor keep time.

    Each field but ``store`` and ``import_from`` is also an environment variable ``HEADWATER_<NAME>``; times are in
    seconds.
    """

    store: StoreOptions
    """Where the events are, and where hints of appends come from."""
    lease: timedelta = timedelta(seconds=3)
    """How long an owner that is frozen or cut off keeps its partitions from others."""
    stall: timedelta = timedelta(seconds=10)
    """How long a handler may keep its host's event loop (an ``async`` one that computes, or waits without ``await``)
    before all that the host owns goes to others. Never less than the lease."""
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
    """How many connections each host reads and saves with."""
    transactions: int = 4
    """How many exactly-once deliveries of async handlers a host makes at a time, and as many of sync ones: each has a
    connection of its own."""
    import_from: tuple[str, ...] = ()
    """Folders that handlers are imported from, beside what is installed."""
    observer: str | None = None
    """Import path of an observer, or of a class of them, that watches the owners in place of the log."""

    def __post_init__(self) -> None:
        for name in INTERVALS:
            value = getattr(self, name)
            if not isinstance(value, timedelta) or not SHORTEST <= value <= LONGEST:
                least, most = SHORTEST.total_seconds(), LONGEST.total_seconds()
                raise ConfigurationError(f"{name}: {value!s} is not a timedelta of {least:g} to {most:g} seconds")
        for name in ("max_moves", "pool_size", "transactions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
                raise ConfigurationError(f"{name}: {value!r} is not a number of 1 to {MOST}")

    @classmethod
    def read(cls, store: StoreOptions, environment: Mapping[str, str] | None = None) -> ClusterOptions:
        """Put options together from the environment. Raises ConfigurationError for a value that is no number."""
        environment = os.environ if environment is None else environment
        found: dict[str, Any] = {}
        for field in fields(cls):
            text = environment.get(f"HEADWATER_{field.name.upper()}")
            if text and isinstance(field.default, timedelta | int):
                found[field.name] = _number(field.name, text, type(field.default))
        found["observer"] = environment.get("HEADWATER_OBSERVER") or None
        return cls(store=store, import_from=import_folders(), **found)

    def of_app(self, app: App | None) -> ClusterOptions:
        """Return these options with what an app says itself."""
        return self if app is None or app.observer is None else replace(self, observer=app.observer)

    @property
    def host_store(self) -> StoreOptions:
        """How a host opens the store."""
        return replace(self.store, pool_size=self.pool_size, application_name="headwater host")

    @property
    def handlers_store(self) -> StoreOptions:
        """How a host opens connections for exactly-once handlers."""
        return replace(self.store, pool_size=self.transactions, application_name="headwater handlers")

    @property
    def connections_per_host(self) -> int:
        """The most connections that a host has open: one that holds its leases, its pool, its handlers' transactions.

        While it starts there is one more, which looks for a pooler. A supervisor has two, a client two at the most.
        """
        return 1 + self.pool_size + 2 * self.transactions

    @property
    def client_store(self) -> StoreOptions:
        """How an operator opens the store: without the user's code."""
        return replace(self.store.without_payloads(), pool_size=2, application_name="headwater client")

    @property
    def supervisor_store(self) -> StoreOptions:
        """How a supervisor opens the store: without the user's code."""
        return replace(self.store.without_payloads(), pool_size=1, application_name="headwater supervisor")

    @property
    def deployment(self) -> str:
        """A short name for this store, so that two deployments on one Ray cluster stay out of each other's way."""
        return hashlib.sha256(f"{self.store.url} {self.store.schema}".encode()).hexdigest()[:10]


def _number(name: str, text: str, kind: type[Any]) -> Any:
    try:
        return timedelta(seconds=float(text)) if kind is timedelta else kind(text)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"HEADWATER_{name.upper()}: {text!r} is not a number") from None


def import_folders() -> tuple[str, ...]:
    """Return where this program imports its own modules from: its script's folder, and the current one."""
    return tuple(dict.fromkeys(str(Path(folder).resolve()) for folder in (sys.path[0], "") if Path(folder).is_dir()))
