"""What a handler looks like from outside: what it may be, and whether it takes a context.

Calls nothing of the user's code and makes no instance of it.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any, Final

from headwater.storage.errors import InvalidArgument

WANTED: Final = "a handler takes (event) or (event, context)"


def takes_context(target: Any) -> bool:
    """Tell ``(event, context)`` from ``(event)``, for a function, a class or an instance; ``*args`` takes both.

    Raises InvalidArgument, which says what to write instead, for any other shape.
    """
    if inspect.isclass(target):
        _check_made_of_nothing(target)
        call, name = _method_of(target)
    else:
        call, name = getattr(target, "handle", None) or target, _name(target)
        if not callable(call):
            raise _refused(f"{target!r:.100} is neither a function nor a class with a method 'handle'")
    _check_calls(call, name)
    return _takes_context(call, name)


def _method_of(target: type[Any]) -> tuple[Any, str]:
    """Return what an instance is called by, without the instance."""
    for method in ("handle", "__call__"):
        # In the classes themselves: a class has a '__call__' by its own class, which makes instances.
        found = next((vars(kind)[method] for kind in target.__mro__ if method in vars(kind)), None)
        if found is not None:
            # What is bound to an instance has one argument less; any object stands for the instance here.
            bound = found.__get__(object(), target) if hasattr(found, "__get__") else found
            return bound, f"{target.__qualname__}.{method}"
    raise _refused(f"class {target.__qualname__} has no method 'handle': give it one, of (self, event)")


def _check_made_of_nothing(target: type[Any]) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of what is written in C nothing is known
        return
    try:
        signature.bind()
    except TypeError:
        raise _refused(
            f"class {target.__qualname__} is made with {signature}: it is made for each consumer without arguments; "
            "give each a default, or open what it needs in 'start'"
        ) from None


def _check_calls(call: Any, name: str) -> None:
    function = inspect.unwrap(call)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _refused(f"{name} yields, so that nothing of it would run when it is called: a handler returns")
    if inspect.isfunction(call) and "." in call.__qualname__.rpartition("<locals>.")[2]:
        first = next(iter(inspect.signature(call).parameters), "")
        if first == "self":
            raise _refused(f"{name} is a method without its object: register the class, with a method 'handle'")


def _takes_context(call: Any, name: str) -> bool:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        raise _refused(f"{name} does not tell what it takes: wrap it in a function of (event)") from None
    for arguments, answer in ((2, True), (1, False)):
        with contextlib.suppress(TypeError):
            signature.bind(*range(arguments))
            return answer
    raise _refused(f"{name} takes {signature}: {WANTED}, by position{_advice(signature)}")


def _advice(signature: inspect.Signature) -> str:
    kinds = inspect.Parameter
    needed = [p for p in signature.parameters.values() if p.default is p.empty]
    by_position = [p.name for p in needed if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in needed if p.kind is kinds.KEYWORD_ONLY]
    if by_name:
        return f"; give {', '.join(by_name)} a default, or take the '*' away"
    if not by_position:
        return "; add the event"
    return f"; give {', '.join(by_position[2:])} a default, or bind it by functools.partial in a function of your own"


def _name(target: Any) -> str:
    return getattr(target, "__qualname__", None) or f"{target!r:.100}"


def _refused(problem: str) -> InvalidArgument:
    return InvalidArgument("handler", problem)
