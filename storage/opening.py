"""Opens a store as programs want it: on Postgres, with its hints going out over Redis when there is one.

Adds nothing to what it opens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.redis.codec import channel_of
from headwater.storage.redis.hints import RedisHints


def hints_of(options: StoreOptions) -> RedisHints | None:
    """Return the hints of a store, not yet connected; None when its options name no Redis."""
    if options.redis_url is None:
        return None
    return RedisHints(options.redis_url, channel_of(urlsplit(options.url).path.strip("/"), options.schema))


@asynccontextmanager
async def connect(url: str | None = None, **settings: Any) -> AsyncIterator[PostgresEventStore]:
    """Open a store for the length of the block: ``async with connect() as store``.

    ``settings`` are those of :meth:`PostgresEventStore.open`; whatever is not given here or in the URL comes from the
    environment (``HEADWATER_DATABASE_URL``, ``HEADWATER_REDIS_URL``, ...). Raises ConfigurationError,
    SchemaMissing, SchemaOutdated, StoreUnavailable.
    """
    names = ("codec", "types", "encryption", "migrate")
    opening: dict[str, Any] = {name: settings.pop(name) for name in names if name in settings}
    options = StoreOptions.read(url, **settings)
    async with AsyncExitStack() as stack:
        if (hints := hints_of(options)) is not None:
            await stack.enter_async_context(hints)
            opening["announce"] = hints.publish
        store = await PostgresEventStore.open(options=options, **opening)
        if hints is not None:
            store.wakeups.hints = hints.listen
        yield await stack.enter_async_context(store)
