"""The app: what a program registers its subscriptions with, and where its store is.

Registers only: it opens nothing and starts nothing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from headwater.storage.checks import check_name
from headwater.storage.errors import ConfigurationError, InvalidArgument
from headwater.storage.options import StoreOptions
from headwater.subscriptions.checks import check_kind, check_path
from headwater.subscriptions.imports import import_path
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.shape import takes_context

DATABASE_URL = "HEADWATER_DATABASE_URL"
"""The environment variable that names the database when a program does not."""

DEFAULTS: Final = SubscriptionOptions()
"""What counts for a subscription of which nothing else is said."""

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")
H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Registration:
    """A subscription as a program wants it: its name, where its handler is found, its options."""

    name: str
    handler: str
    """Import path of a function, or of a class with ``handle``."""
    options: SubscriptionOptions


def _with_options(
    make: Callable[P, SubscriptionOptions],
) -> Callable[[Callable[[S, str, SubscriptionOptions], R]], Callable[Concatenate[S, str, P], R]]:
    """Let a method take an option class's fields as keyword arguments, typed, without stating them again."""

    def decorate(method: Callable[[S, str, SubscriptionOptions], R]) -> Callable[Concatenate[S, str, P], R]:
        @functools.wraps(method)
        def call(self: S, name: str, /, *args: P.args, **options: P.kwargs) -> R:
            _check_names(name, make, args, options)
            return method(self, name, make(*args, **options))

        return call

    return decorate


def _check_names(
    name: object, make: Callable[..., SubscriptionOptions], args: Sequence[object], given: Mapping[str, object]
) -> None:
    """Say which option is meant. Raises TypeError, as every call with a wrong argument does."""
    there = inspect.signature(make).parameters
    if args:
        raise TypeError(f"subscription {name!r}: options are given by name, as in batch_size=500")
    for wrong in given.keys() - there.keys():
        near = difflib.get_close_matches(wrong, there, 1, 0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(there)}"
        raise TypeError(f"subscription {name!r} has no option {wrong!r}: {advice}")


class App:
    """A program's subscriptions, and the store that they read.

    >>> app = App("shop")
    >>> @app.subscription("totals", batch_size=500)
    ... async def totals(events, context): ...

    Run it with ``headwater run module:app``.
    """

    def __init__(
        self,
        name: str,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        schema: str | None = None,
        types: str | None = None,
        encryption: str | None = None,
        codec: str | None = None,
        observer: str | None = None,
    ) -> None:
        """``types``, ``encryption``, ``codec`` and ``observer`` are import paths, found in every process of a cluster.

        An ``observer`` watches what the owners of all subscriptions do, in place of the one that writes to the log.
        """
        self.name = check_name("app", name)
        self._database_url = database_url
        self._redis_url = redis_url
        self._schema = schema
        if observer is not None:
            check_path("observer", observer)
        self.observer = observer
        self._payloads: dict[str, Any] = {"types": types, "encryption": encryption, "codec": codec}
        self._registrations: dict[str, Registration] = {}

    @property
    def store_options(self) -> StoreOptions:
        """Where and how the store is opened: the app's arguments, else the environment.

        Raises ConfigurationError when neither names a database.
        """
        url = self._database_url or os.environ.get(DATABASE_URL) or os.environ.get("DATABASE_URL")
        if not url:
            raise ConfigurationError(f"app {self.name!r} has no database: pass database_url or set {DATABASE_URL}")
        return StoreOptions.read(url, redis_url=self._redis_url, schema=self._schema, **self._payloads)

    def with_payloads(self, options: StoreOptions) -> StoreOptions:
        """Return options of a store, with what this app says about its payloads."""
        return replace(options, **{name: path for name, path in self._payloads.items() if path is not None})

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """Everything registered so far, in order of registration."""
        return tuple(self._registrations.values())

    @_with_options(SubscriptionOptions)
    def subscription(self, name: str, options: SubscriptionOptions) -> Callable[[H], H]:
        """Register the decorated function or class as the handler of the subscription ``name``.

        The keyword arguments are the fields of SubscriptionOptions. The handler stays as it is. Raises
        InvalidArgument, ImportPathError.
        """

        if callable(name):
            raise InvalidArgument("subscription", 'has no name: write @app.subscription("name") above the handler')

        def register(handler: H) -> H:
            self.register(name, handler, options)
            return handler

        return register

    def register(
        self, name: str, handler: Callable[..., Any] | str, options: SubscriptionOptions = DEFAULTS
    ) -> Registration:
        """Register a handler, itself or by its import path, as the subscription ``name``.

        Raises InvalidArgument for a name that is taken, empty or too long, and for a handler that cannot be called with
        (event) or (event, context); ImportPathError for one that no other process could import.
        """
        check_name("subscription", name)
        check_kind("options", options, SubscriptionOptions)
        if name in self._registrations:
            there = self._registrations[name].handler
            raise InvalidArgument(
                "subscription",
                f"{name!r} is registered in app {self.name!r} already, for {there}: give this one another name",
            )
        for category in options.where.categories:
            if "-" in category:
                problem = f"{category!r} is none, and nothing would be delivered: a category ends before the first '-'"
                raise InvalidArgument("where.categories", problem)
        if options.replaces == name:
            raise InvalidArgument("replaces", f"{name!r} cannot replace itself: name the older version")
        if isinstance(handler, str):
            check_path("handler", handler)
            path = handler
        else:
            path = import_path(handler)
            takes_context(handler)
        registration = Registration(name, path, options)
        self._registrations[name] = registration
        return registration

    def __repr__(self) -> str:
        return f"<App {self.name} subscriptions={sorted(self._registrations)}>"
