"""Subscription options as JSON values and back: what is stored of a registration, and read in any process.

Only what differs from the defaults is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from headwater.storage.errors import ConfigurationError, HeadwaterError
from headwater.storage.model import Filter
from headwater.subscriptions.imports import import_path, resolve
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy, Start, StartAt, SubscriptionOptions

T = TypeVar("T")

PLACEMENT: Final = ("resources", "labels", "apart", "consumers")
"""The options that say on which nodes a subscription may run."""


def encode(options: SubscriptionOptions) -> dict[str, Any]:
    """Return options as JSON values."""
    return _encode(options, SubscriptionOptions())


def decode(stored: Mapping[str, Any]) -> SubscriptionOptions:
    """Return options from JSON values.

    Raises ConfigurationError for what another version, or a hand, has stored; InvalidArgument for a value that can
    never work; ImportPathError for an error class that is not there.
    """
    return _decode(SubscriptionOptions, stored)


def decode_placement(stored: Mapping[str, Any]) -> SubscriptionOptions:
    """Return options of which only those are read that say where it may run: nothing is imported for them.

    Raises ConfigurationError, InvalidArgument.
    """
    if not isinstance(stored, Mapping):
        raise _unreadable(f"they are no object but {stored!r:.100}")
    return _decode(SubscriptionOptions, {name: stored[name] for name in PLACEMENT if name in stored})


def _encode(value: Any, default: Any) -> dict[str, Any]:
    return {
        field.name: _encode_value(getattr(value, field.name), getattr(default, field.name))
        for field in fields(value)
        if getattr(value, field.name) != getattr(default, field.name)
    }


def _encode_value(value: Any, default: Any) -> Any:
    match value:
        case Filter():
            return _encode(value, default)
        case RetryPolicy():
            return _encode(value, RetryPolicy() if default is None else default)
        case Delivery() | OnFailure() | Start():
            return value.value
        case timedelta():
            return value.total_seconds()
        case datetime():
            return {"time": value.isoformat()}
        case type():
            return import_path(value)
        case tuple() | list():
            return [_encode_value(each, None) for each in value]
        case set() | frozenset():
            return sorted(value)  # the same text each time: registering again must change nothing
        case _:
            return value


def _start(value: Any) -> StartAt:
    return value if isinstance(value, int) else _time(value) if isinstance(value, dict) else Start(value)


def _time(value: Any) -> datetime:
    return datetime.fromisoformat(value["time"])


def _optional_seconds(value: Any) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _pairs(value: Any) -> tuple[tuple[Any, Any], ...]:
    # Of an object, or of a text, the keys or the letters would be taken for pairs.
    if not isinstance(value, list) or not all(isinstance(pair, list) for pair in value):
        raise TypeError(f"{value!r:.100} is no list of pairs")
    return tuple((name, each) for name, each in value)


_DECODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "where": lambda value: _decode(Filter, value),
    "start": _start,
    "delivery": Delivery,
    "consumers": lambda value: tuple(value) if isinstance(value, list) else value,
    "idle_after": _optional_seconds,
    "checkpoint_interval": _optional_seconds,
    "poll_interval": _optional_seconds,
    "handler_timeout": _optional_seconds,
    "drain_timeout": _optional_seconds,
    "retry": lambda value: _decode(RetryPolicy, value),
    "resources": _pairs,
    "labels": _pairs,
    "first_delay": _optional_seconds,
    "max_delay": _optional_seconds,
    "then": OnFailure,
    "never": lambda value: tuple(resolve(path) for path in value),
    "by_error": lambda value: tuple((resolve(path), _decode(RetryPolicy, policy)) for path, policy in _pairs(value)),
    "types": tuple,
    "categories": tuple,
    "streams": tuple,
    "tags": tuple,
    "since": _time,
    "until": _time,
}
"""How the fields are read whose JSON values are not what they were; field names are unique over the three classes."""


def _decode(kind: Callable[..., T], stored: Mapping[str, Any]) -> T:
    if not isinstance(stored, Mapping):
        raise _unreadable(f"they are no object but {stored!r:.100}")
    values = {name: _decode_value(name, value) for name, value in stored.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise _unreadable(str(error)) from error


def _decode_value(name: str, value: Any) -> Any:
    try:
        return _DECODERS.get(name, lambda same: same)(value)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if isinstance(error, HeadwaterError):  # it names what is wrong
            raise
        raise _unreadable(f"{name}: {error}") from error


def _unreadable(problem: str) -> ConfigurationError:
    return ConfigurationError(f"these options were registered by another version: {problem}")
