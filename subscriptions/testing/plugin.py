"""Fixtures for users' own tests; needs pytest-asyncio. Load it in a ``conftest.py``::

    pytest_plugins = ["headwater.subscriptions.testing.plugin"]

Holds fixtures only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest_asyncio

from headwater.subscriptions.app import App
from headwater.subscriptions.testing.runtime import MemoryRuntime


@pytest_asyncio.fixture
async def memory_runtime() -> AsyncIterator[Callable[..., Awaitable[MemoryRuntime]]]:
    """Start in-memory runtimes, ended with the test: ``runtime = await memory_runtime(app)``."""
    async with AsyncExitStack() as stack:

        async def start(app: App | None = None) -> MemoryRuntime:
            return await stack.enter_async_context(MemoryRuntime(app))

        yield start
