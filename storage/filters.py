"""Whether an event passes a filter, decided here and not by a server.

Never reads anything: for one stream's events, of which few are left out, and for the in-memory store.
"""

from __future__ import annotations

from headwater.storage.model import Filter, RecordedEvent, category_of


def matches(where: Filter, event: RecordedEvent) -> bool:
    """Return whether an event passes."""
    return (
        (not where.types or event.type in where.types)
        and (not where.streams or event.stream in where.streams)
        and (not where.categories or category_of(event.stream) in where.categories)
        and (where.stream_prefix is None or event.stream.startswith(where.stream_prefix))
        and (not where.tags or set(where.tags) <= set(event.tags))
        and (where.since is None or event.created_at >= where.since)
        and (where.until is None or event.created_at < where.until)
    )
