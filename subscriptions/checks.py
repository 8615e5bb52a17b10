"""Checks of what users say about subscriptions: a value that can never work is refused where it is written.

Imports nothing of what the values name: whether a path leads anywhere is found out by whoever runs the handler.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from headwater.storage.checks import check_name, check_number, check_time
from headwater.storage.errors import InvalidArgument

MOST: Final = 2**31 - 1
"""More of anything than a subscription can have."""
MOST_PARTITIONS: Final = 10_000
LONGEST: Final = timedelta(days=36_500)
"""Longer than anybody waits; seconds as a float still tell it to the microsecond."""
KEYS: Final = ("stream", "none", "category", "correlation_id")
"""What ``partition_by`` can be, beside fields and import paths."""


def check_kind(argument: str, value: object, kind: type[Any]) -> None:
    """Refuse a value of another type. Raises InvalidArgument."""
    if not isinstance(value, kind):
        raise InvalidArgument(argument, f"must be of type {kind.__name__}, not {type(value).__name__}{_advice(kind)}")


def _advice(kind: type[Any]) -> str:
    if issubclass(kind, timedelta):
        return ": write timedelta(seconds=...)"
    if issubclass(kind, enum.Enum):
        return f": write {' or '.join(f'{kind.__name__}.{each.name}' for each in kind)}"
    return ""


def check_count(argument: str, value: object, lowest: int = 1, highest: int = MOST) -> None:
    """Refuse what is no whole number of ``lowest`` or more. Raises InvalidArgument."""
    check_number(argument, value, lowest, highest)


def check_share(argument: str, value: object, lowest: float, highest: float = math.inf) -> None:
    """Refuse what is no finite number in its range. Raises InvalidArgument."""
    if type(value) not in (int, float) or not math.isfinite(_as_float(value)):
        raise InvalidArgument(argument, f"must be a number, not {value!r:.100}")
    if not lowest <= _as_float(value) <= highest:
        limit = f"from {lowest:g} to {highest:g}" if math.isfinite(highest) else f"{lowest:g} or more"
        raise InvalidArgument(argument, f"must be {limit}, not {value!r:.100}")


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_span(argument: str, value: object, *, may_be_zero: bool = False) -> None:
    """Refuse what is no length of time. Raises InvalidArgument."""
    check_kind(argument, value, timedelta)
    if value < timedelta(0) or (value == timedelta(0) and not may_be_zero):  # type: ignore[operator]  # checked above
        raise InvalidArgument(argument, f"must be {'0 or more' if may_be_zero else 'above 0'}, not {value}")
    if value > LONGEST:  # type: ignore[operator]
        raise InvalidArgument(argument, f"must be at most {LONGEST.days} days, not {value}")


def check_start(value: object) -> None:
    """Refuse a beginning that is neither a number of 0 or more nor a time with its zone. Raises InvalidArgument."""
    if isinstance(value, datetime):
        check_time("start", value)
    elif isinstance(value, int):
        check_number("start", value)
    else:
        raise InvalidArgument("start", f"must be ORIGIN, CURRENT, a number or a time, not {type(value).__name__}")


def check_path(argument: str, value: object) -> None:
    """Refuse what is neither None nor an import path. Raises InvalidArgument."""
    if value is not None:
        module, colon, attribute = check_name(argument, value).partition(":")
        if not (module and colon and attribute):
            raise InvalidArgument(argument, f"{value!r} is not an import path: write 'package.module:attribute'")


def check_partition_key(value: object) -> None:
    """Refuse what names no partition key. Raises InvalidArgument."""
    if value is None or check_name("partition_by", value) in KEYS:
        return
    part, _, field = str(value).partition(".")
    if not (part in ("data", "metadata") and field and ":" not in field):
        check_path("partition_by", value)


def check_resources(value: object) -> None:
    """Refuse what are no pairs of a resource's name and how much of it is needed. Raises InvalidArgument."""
    for name, amount in _pairs("resources", value, "a name and an amount", '(("GPU", 1.0),)'):
        check_name("resources", name)
        if name == "object_store_memory":
            raise InvalidArgument("resources", "handler actors get no object store: events are sent to them directly")
        check_share("resources", amount, 0)
        if _as_float(amount) > 1 and not _as_float(amount).is_integer():
            raise InvalidArgument("resources", f"{amount} {name}: above 1 only whole numbers can be had")


def check_labels(value: object) -> None:
    """Refuse what are no pairs of a label and its value, or ask for two values of one. Raises InvalidArgument."""
    wanted: dict[str, object] = {}
    for label, each in _pairs("labels", value, "a label and its value", '(("zone", "a"),)'):
        check_name("labels", label)
        if each != "":  # a label may be empty
            check_name("labels", each)
        if wanted.setdefault(label, each) != each:
            raise InvalidArgument("labels", f"no node has two values of {label!r:.100}")


def check_policies(value: object, kind: type[Any]) -> None:
    """Refuse what are no pairs of an error class and a policy of its own. Raises InvalidArgument."""
    example = "((ConnectionError, RetryPolicy(attempts=50)),)"
    for error, policy in _pairs("by_error", value, "an error class and its policy", example):
        check_error_classes("by_error", (error,))
        check_kind("by_error", policy, kind)
        if policy.by_error:
            raise InvalidArgument("by_error", "a policy for an error class has none of its own")


def _pairs(argument: str, value: object, of: str, example: str) -> list[Any]:
    """Return pairs. Raises InvalidArgument, which says what to write instead."""
    if isinstance(value, Mapping):
        raise InvalidArgument(argument, f"must be pairs of {of}, not a {type(value).__name__}: write {example}")
    # What can be gone through only once would be used up here.
    if not isinstance(value, tuple | list | set | frozenset):
        raise InvalidArgument(argument, f"must be pairs of {of}: write {example}")
    for pair in value:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidArgument(argument, f"{pair!r:.100} is not {of}: write {example}")
    return list(value)


def check_error_classes(argument: str, value: object) -> None:
    """Refuse what are no classes of errors. Raises InvalidArgument."""
    if not isinstance(value, tuple | list):
        raise InvalidArgument(argument, f"must be a tuple of error classes, not {type(value).__name__}")
    for each in value:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise InvalidArgument(argument, f"{each!r:.100} is not a class of errors")


def check_consumers(value: object) -> None:
    """Refuse what is neither a number of handler actors nor the least and the most of them. Raises InvalidArgument."""
    if not isinstance(value, tuple):
        check_count("consumers", value, 0)
        return
    if len(value) != 2:
        raise InvalidArgument("consumers", f"{value!r:.100}: write a number, or (least, most)")
    least, most = value
    check_count("consumers", least)
    check_count("consumers", most)
    if least > most:
        raise InvalidArgument("consumers", f"{value!r:.100}: write (least, most), the smaller number first")
