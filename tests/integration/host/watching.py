"""An app whose owners are watched by an observer of its own, which itself fails at one thing."""

from __future__ import annotations

from headwater import App, Observer, RecordedEvent, Status, SubscriptionOptions
from headwater.storage.leases import PartitionKey, Progress

STATUSES: list[tuple[str, str, str | None]] = []


class Watching(Observer):
    """Keeps what it is told."""

    def status_changed(self, key: PartitionKey, status: Status) -> None:
        STATUSES.append((key.subscription, status.phase.value, status.reason))

    def checkpointed(self, key: PartitionKey, progress: Progress) -> None:
        raise RuntimeError("an observer's own affair")


observer = Watching()
app = App("watched", observer=f"{__name__}:observer")


def handle(event: RecordedEvent) -> None: ...


app.register("handled", handle, SubscriptionOptions(source="orders"))
