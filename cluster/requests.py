"""Checks of what operators ask for: a request that can never be obeyed is refused before it is written down.

Looks at values only; whether there is such a subscription, node or event is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from headwater.storage.checks import check_name, check_number
from headwater.storage.errors import InvalidArgument
from headwater.storage.model import ALL
from headwater.storage.registry import ParkedFilter, PartitionState


def check_arguments(arguments: object) -> dict[str, Any]:
    """Return a request's arguments, which are kept as JSON. Raises InvalidArgument."""
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise InvalidArgument("arguments", f"must be names and values, not {type(arguments).__name__}")
    given = dict(arguments)
    for name in ("to", "position"):
        if given.get(name) is not None:
            check_number(name, given[name])
    if given.get("node") is not None:
        check_name("node", given["node"])
    try:
        orjson.dumps(given)
    except TypeError as error:  # also for text that is no Unicode, and for numbers beyond 64 bits
        raise InvalidArgument("arguments", f"cannot be kept as JSON: {error}") from error
    if given.get("reason") is not None:
        check_reason(given["reason"])
    return given


def check_reason(reason: object) -> str:
    """Return the reason of a request, unless it cannot be kept. Raises InvalidArgument."""
    if not isinstance(reason, str):
        raise InvalidArgument("reason", f"must be of type str, not {type(reason).__name__}")
    if "\0" in reason or (not reason.isascii() and reason != reason.encode("utf-8", "replace").decode()):
        raise InvalidArgument("reason", f"{reason!r:.100} is no text that can be kept: it has NUL or no Unicode")
    return reason


def check_complete(verb: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a request that does not say where to. Raises InvalidArgument."""
    needed = {"rewind": "to", "move": "node"}.get(verb)
    if needed is not None and arguments.get(needed) is None:
        raise InvalidArgument(needed, f"'{verb}' needs it")


def check_rewind(state: PartitionState, to: int) -> None:
    """Refuse a number that the source has not reached: what comes up to it would be passed over, unseen.

    Raises InvalidArgument.
    """
    if to > state.head:
        head = "the head" if state.source == ALL else f"the version of {state.source!r}"
        raise InvalidArgument("to", f"{to} is above {head}, which is {state.head}")


def check_parked(where: object, limit: object = 1) -> None:
    """Refuse what does not say which parked events are meant, or how many. Raises InvalidArgument."""
    if not isinstance(where, ParkedFilter):
        raise InvalidArgument("where", f"must be a ParkedFilter, not {type(where).__name__}")
    for position in where.positions or ():
        check_number("where.positions", position)
    if limit is not None:
        check_number("limit", limit)
