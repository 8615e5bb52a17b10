"""What leaves the driver's blocks: typed errors, and every cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import pytest

from headwater.storage.errors import InvalidArgument, StoreUnavailable
from headwater.storage.postgres.failures import translated


async def test_a_cancellation_that_the_driver_loses_ends_the_task_all_the_same() -> None:
    begun = asyncio.Event()

    async def call() -> None:
        with translated(), suppress(asyncio.CancelledError):  # what wait_for does when the answer has just come
            begun.set()
            await asyncio.Event().wait()

    calling = asyncio.create_task(call())
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_time_limit_within_the_block_is_no_cancellation() -> None:
    with translated(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_who_was_cancelled_before_may_still_clean_up() -> None:
    begun, cleaned = asyncio.Event(), False

    async def call() -> None:
        nonlocal cleaned
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            with translated():
                await asyncio.sleep(0)
            cleaned = True

    calling = asyncio.create_task(call())
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert cleaned


def test_outside_of_any_loop_errors_are_translated_as_well() -> None:
    with pytest.raises(StoreUnavailable), translated():
        raise psycopg.OperationalError("gone")
    with pytest.raises(InvalidArgument), translated():
        "\ud800".encode()
