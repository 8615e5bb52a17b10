"""What a handler raised, as something that can be raised again anywhere, and told in words whatever it does.

Decides nothing about retries; knows neither loops nor actors.
"""

from __future__ import annotations

import inspect
import pickle
from typing import Any, Final

from headwater.subscriptions.ports import Unmendable

_SPECIAL: Final = (StopIteration, StopAsyncIteration)
"""Ordinary errors by their class, which coroutines, generators and futures take for something else."""


class Escaped(Exception):
    """Stands for what a handler raised that would end a task, a loop or a process, or that cannot travel.

    ``original`` is that itself, where it is here: the failure policy goes by its class.
    """

    def __init__(self, described: str, original: BaseException | None = None) -> None:
        super().__init__(described)
        self.original = original

    def __reduce__(self) -> tuple[Any, ...]:
        return Escaped, (str(self),)


def ordinary(error: BaseException) -> Exception:
    """Return an error that can be raised through tasks, futures and context managers: itself, or what stands for it."""
    if isinstance(error, Exception) and not isinstance(error, _SPECIAL):
        return error
    return Escaped(described(error), error)


def original(error: BaseException) -> BaseException:
    """Return what the handler raised, as far as it is here."""
    return error.original if isinstance(error, Escaped) and error.original is not None else error


def described(error: BaseException) -> str:
    """Return the class and the words of an error, or only its class when it has no words that can be had."""
    if isinstance(error, Escaped):
        return str(error)
    name = type(error).__name__
    try:
        words = str(error)
    except Exception as broken:  # noqa: BLE001  # it is the user's class: the true reason must not be lost with its words
        return f"{name}: (its text cannot be had: {type(broken).__name__})"
    if isinstance(error, TimeoutError) and not words:
        return "TimeoutError: the handler did not end in time"
    return f"{name}: {words}"


def refuse_unrun(result: object) -> None:
    """Raise Unmendable for what a handler returned that would have to be run: it has handled nothing then."""
    if result is None:
        return
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        kind = type(result).__name__
        raise Unmendable(f"the handler returned a {kind}, which nobody runs: declare it by 'async def' and await that")


def carried(error: BaseException) -> bytes:
    """Write an error down for another process: itself when it arrives there as it is, else what stands for it."""
    words = described(error)
    found = original(error)
    try:
        packed = pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
        whole = type(pickle.loads(packed)) is type(found)  # noqa: S301  it was written a line above
    except Exception:  # noqa: BLE001  # whatever keeps it from travelling: its class and words do
        whole = False
    return pickle.dumps((words, packed if whole else None), pickle.HIGHEST_PROTOCOL)


def arrived(packed: bytes) -> Exception:
    """Read what :func:`carried` wrote; only ever from a process of the same cluster."""
    words, error = pickle.loads(packed)  # noqa: S301  a handler actor of this owner wrote it, under the same user
    if error is None:
        return Escaped(words)
    try:
        return ordinary(pickle.loads(error))  # noqa: S301  the same
    except Exception:  # noqa: BLE001  # its class may be importable there only
        return Escaped(words)
