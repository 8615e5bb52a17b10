"""Sends a write again when the connection broke under it: safe, because the same event ids are written once.

Never sends anything again for another reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import psycopg

from headwater.storage.errors import CommitUnknown
from headwater.storage.postgres.failures import connection_broke, translate

log = logging.getLogger(__name__)

PAUSES: Final = (0.02, 0.1, 0.3, 1.0)
"""Seconds before each further try: what a fail-over or a restart needs."""

Value = TypeVar("Value")


async def until_known(send: Callable[[], Awaitable[Value]]) -> Value:
    """Return what ``send()`` returns, after as many tries as broken connections make necessary.

    Raises CommitUnknown when it stays unknown whether the write took effect, and StoreUnavailable and other errors of
    the store when it certainly did not.
    """
    sent = False
    for pause in (*PAUSES, None):
        try:
            return await send()
        except TimeoutError as error:
            raise CommitUnknown("the database did not answer a write in time") from error
        except psycopg.Error as error:
            broke = connection_broke(error)
            sent = sent or broke
            if pause is None or not broke:
                if sent:
                    raise CommitUnknown(str(error), error.sqlstate) from error
                raise translate(error) from error
            log.warning("the connection broke during a write; sending the same events again: %s", error)
            await asyncio.sleep(pause)
    raise AssertionError("the last try returns or raises")
