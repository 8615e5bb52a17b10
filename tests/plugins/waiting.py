"""Waiting for a condition, with a deadline. The only place in the tests that may wait.

``await until(...)`` in asynchronous tests, ``wait_until(...)`` in the others; both return the condition's truthy value.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, overload

Value = TypeVar("Value")

DEADLINE: Final = 20.0
"""Seconds: far more than anything should take, because the machine may be busy with something else."""
POLL: Final = 0.01


@overload
async def until(
    condition: Callable[[], Coroutine[Any, Any, Value]], deadline: float = DEADLINE, *, what: str = ""
) -> Value: ...


@overload
async def until(condition: Callable[[], Value], deadline: float = DEADLINE, *, what: str = "") -> Value: ...


async def until(condition: Callable[[], Any], deadline: float = DEADLINE, *, what: str = "") -> Any:
    """Wait until ``condition()`` (plain or asynchronous) is truthy and return what it gave. Raises AssertionError."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(_too_late(condition, deadline, what, value))
        await asyncio.sleep(POLL)


def wait_until(condition: Callable[[], Value], deadline: float = DEADLINE, *, what: str = "") -> Value:
    """Wait until ``condition()`` is truthy and return what it gave. Raises AssertionError when time is up."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(_too_late(condition, deadline, what, value))
        time.sleep(POLL)
    return value


def _too_late(condition: Callable[[], object], deadline: float, what: str, value: object) -> str:
    return f"{what or inspect.getsource(condition).strip()}: still {value!r} after {deadline:g} s"
