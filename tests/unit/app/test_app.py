"""Registration: everything is named by import path, and what no other process could import is refused."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater import ANY, App, Delivery, Filter, ImportPathError, InvalidArgument, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.imports import import_path, resolve


async def top_level(event: object) -> None:
    """A handler that any process can import."""


class Needy:
    """Cannot be made without arguments."""

    def __init__(self, table: str) -> None: ...

    def handle(self, event: object) -> None: ...


class Mute:
    """Has nothing to be called by."""


class Wide:
    """Takes one argument too many."""

    def handle(self, event: object, context: object, more: object) -> None: ...


class Static:
    """Needs no instance."""

    @staticmethod
    def handle(event: object, context: object) -> None: ...


class Called:
    """Is called itself."""

    def __call__(self, *everything: object) -> None: ...


def of_nothing() -> None: ...


def of_three(event: object, context: object, table: str) -> None: ...


def of_names(event: object, *, context: object) -> None: ...


def yielding(event: object) -> Iterator[object]:
    yield event


def of_anything(*everything: object) -> None: ...


def of_defaults(event: object, context: object = None, table: str = "totals") -> None: ...


class TopLevel:
    """A handler class that any process can import."""

    def handle(self, event: object) -> None: ...


def test_a_decorated_handler_stays_as_it_is_and_is_named_by_its_path() -> None:
    app = App("shop")
    assert app.subscription("totals", batch_size=7, delivery=Delivery.EXACTLY_ONCE)(top_level) is top_level
    (registration,) = app.registrations
    assert registration.name == "totals"
    assert registration.handler.endswith(":top_level")
    assert registration.options == SubscriptionOptions(batch_size=7, delivery=Delivery.EXACTLY_ONCE)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no option 'batchsize': did you mean 'batch_size'\?"):
        App("shop").subscription("totals", batchsize=7)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"has no option 'qqq': there are source, where, .*, apart"):
        App("shop").subscription("totals", qqq=7)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="options are given by name"):
        App("shop").subscription("totals", 7)  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (of_nothing, r"of_nothing takes \(\).*: a handler takes \(event\) or \(event, context\).*add the event"),
        (of_three, r"of_three takes .*; give table a default"),
        (of_names, r"of_names takes .*; give context a default, or take the '\*' away"),
        (yielding, "yielding yields, so that nothing of it would run"),
        (Needy, r"class Needy is made with \(table: .*without arguments"),
        (Mute, "class Mute has no method 'handle': give it one"),
        (Wide, r"Wide.handle takes .*; give more a default"),
        (TopLevel.handle, "TopLevel.handle is a method without its object: register the class"),
    ],
)
def test_a_handler_that_could_not_be_called_is_refused_where_it_is_registered(handler: Any, says: str) -> None:
    app = App("shop")
    with pytest.raises(InvalidArgument, match=says):
        app.subscription("totals")(handler)
    assert app.registrations == ()


@pytest.mark.parametrize("handler", [of_anything, of_defaults, top_level, TopLevel, Static, Called])
def test_a_handler_that_can_be_called_is_taken(handler: Any) -> None:
    app = App("shop")
    app.subscription("totals")(handler)
    assert [each.name for each in app.registrations] == ["totals"]


def test_a_name_can_be_registered_once() -> None:
    app = App("shop")
    app.register("totals", top_level, SubscriptionOptions())
    with pytest.raises(InvalidArgument, match=r"'totals' is registered in app 'shop' already, for \S+:top_level: give"):
        app.register("totals", TopLevel, SubscriptionOptions())


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (
            {"where": Filter(types="OrderPaid")},  # type: ignore[arg-type]
            r"where.types: must be a tuple of names: write \('OrderPaid',\)",
        ),
        ({"handler_timeout": 5}, r"handler_timeout: .*not int: write timedelta\(seconds=...\)"),
        ({"delivery": "exactly-once"}, "write Delivery.AT_LEAST_ONCE or Delivery.EXACTLY_ONCE or"),
        ({"where": Filter(categories=("order-1",))}, "where.categories: 'order-1' is none, and nothing would be"),
    ],
)
def test_a_refusal_says_what_to_write(option: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        App("shop").subscription("totals", **option)(top_level)


@pytest.mark.parametrize("name", ["", "é" * 300, "\0", "\ud800", None, 7], ids=repr)
def test_a_name_that_can_be_none_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument):
        App("shop").register(name, top_level, SubscriptionOptions())
    with pytest.raises(InvalidArgument):
        App(name)


@pytest.mark.parametrize(
    "option",
    [
        {"batch_size": 0},
        {"batch_size": "10"},
        {"batch_size": True},
        {"partitions": 10_001},
        {"consumers": -1},
        {"source": ""},
        {"source": None},
        {"where": None},
        {"where": Filter(types=("\0",))},
        {"start": -1},
        {"start": "origin"},
        {"start": datetime(2013, 1, 1)},  # noqa: DTZ001
        {"delivery": "exactly-once"},
        {"delivery": Delivery.EXACTLY_ONCE, "consumers": 2},
        {"partition_by": "strem"},
        {"partition_by": "data."},
        {"selector": len},
        {"mapper": "no-path"},
        {"poll_interval": timedelta(0)},
        {"poll_interval": 1.0},
        {"checkpoint_interval": timedelta(seconds=-1)},
        {"handler_timeout": timedelta.max},
        {"retry": {"attempts": 3}},
        {"resources": {"GPU": 1}},
        {"labels": {"zone": "a"}},
        {"labels": ("zone", "a")},
        {"labels": (("zone", 1),)},
        {"labels": (("zone", "a"), ("zone", "b"))},
        {"labels": "ab"},
        {"apart": 7},
        {"apart": ""},
        {"replaces": 7},
        {"where": Filter(tags={"x": 1})},  # type: ignore[arg-type]
        {"resources": (("GPU", -1),)},
        {"resources": (("GPU", 1.5),)},
        {"resources": (("object_store_memory", 1000.0),)},
    ],
    ids=repr,
)
def test_an_option_that_can_never_work_is_refused_where_it_is_written(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        App("shop").subscription("totals", **option)


@pytest.mark.parametrize(
    "option",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"first_delay": 1},
        {"factor": float("nan")},
        {"factor": -1},
        {"factor": 0.1},
        {"jitter": 1.1},
        {"then": "park"},
        {"never": ValueError},
        {"never": ("ValueError",)},
        {"by_error": {ConnectionError: RetryPolicy()}},
        {"by_error": (ConnectionError, RetryPolicy())},
        {"by_error": ((ConnectionError, 50),)},
        {"by_error": (("ConnectionError", RetryPolicy()),)},
        {"by_error": None},
    ],
    ids=repr,
)
def test_a_retry_policy_that_can_never_work_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        RetryPolicy(**option)


@pytest.mark.parametrize(
    ("make", "option", "advice"),
    [
        (SubscriptionOptions, {"labels": {"zone": "a"}}, r'labels: .*not a dict: write \(\("zone", "a"\),\)'),
        (SubscriptionOptions, {"resources": {"GPU": 1}}, r'resources: .*not a dict: write \(\("GPU", 1.0\),\)'),
        (SubscriptionOptions, {"resources": iter([("GPU", 1.0)])}, r"resources: must be pairs"),
        (SubscriptionOptions, {"resources": ("GPU", 1)}, r"'GPU' is not a name and an amount: write \(\("),
        (RetryPolicy, {"by_error": {KeyError: RetryPolicy()}}, r"by_error: .*write \(\(ConnectionError, RetryPolicy"),
    ],
)
def test_a_refusal_of_what_are_no_pairs_says_what_to_write(make: Any, option: dict[str, Any], advice: str) -> None:
    with pytest.raises(InvalidArgument, match=advice):
        make(**option)


def test_a_decorator_without_parentheses_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidArgument, match=r'write @app.subscription\("name"\)'):
        App("shop").subscription(top_level)  # type: ignore[call-overload,arg-type,unused-ignore]


def test_a_subscription_that_would_replace_itself_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot replace itself"):
        App("shop").register("totals", top_level, SubscriptionOptions(replaces="totals"))


def test_what_no_other_process_could_import_is_refused() -> None:
    def local(event: object) -> None: ...

    app = App("shop")
    for handler in (local, lambda event: None):
        with pytest.raises(ImportPathError, match="top level"):
            app.register("totals", handler, SubscriptionOptions())


def test_an_app_without_a_database_says_how_to_give_it_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADWATER_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(headwater.ConfigurationError, match="HEADWATER_DATABASE_URL"):
        _ = App("shop").store_options


def test_addresses_come_from_arguments_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_DATABASE_URL", "postgresql://environment/db")
    monkeypatch.setenv("HEADWATER_REDIS_URL", "")
    monkeypatch.setenv("HEADWATER_SCHEMA", "other")
    app = App("shop", database_url="postgresql://argument/db")
    options = app.store_options
    assert (options.url, options.redis_url, options.schema) == ("postgresql://argument/db", None, "other")


def test_a_path_is_resolved_to_what_it_names() -> None:
    assert resolve("headwater.storage.model:ANY") is ANY
    assert resolve("headwater.storage.model:ExpectedVersion.ANY") is ANY
    assert import_path(App) == "headwater.subscriptions.app:App"


@pytest.mark.parametrize("path", ["", "nothing", ":", "a:", ":b", "no.such.module:x", "headwater:nothing"])
def test_a_path_that_names_nothing_is_answered_in_one_line(path: str) -> None:
    with pytest.raises(ImportPathError) as caught:
        resolve(path)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_while_imported_is_answered_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_handlers.py").write_text("raise RuntimeError('first line\\nsecond line')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportPathError, match=r"RuntimeError: first line$"):
        resolve("broken_handlers:handle")


def test_a_script_names_its_handlers_by_its_file(tmp_path: Path) -> None:
    script = tmp_path / "shop.py"
    script.write_text(
        "from headwater import App\n"
        "app = App('shop')\n"
        "@app.subscription('totals')\n"
        "def totals(event): ...\n"
        "if __name__ == '__main__': print(app.registrations[0].handler)\n"
    )
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.strip() == "shop:totals"


def test_the_public_names_are_there_sorted_and_light() -> None:
    names = headwater.__all__
    assert all(hasattr(headwater, name) for name in names)
    assert {"AppendCondition", "ParkedFilter"} <= set(names)  # what public calls take
    kinds = [(not name.isupper(), name[0].islower(), name) for name in names]
    assert kinds == sorted(kinds)
    loaded = "import headwater, sys; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, timeout=60).stdout == b"False\n"


def test_what_the_client_returns_can_be_named() -> None:
    """So that users' own functions can be typed: whatever a method of it returns or takes comes from the package."""
    named: set[str] = set()
    for name, method in inspect.getmembers(headwater.Client, inspect.isfunction):
        if not name.startswith("_"):
            for text in method.__annotations__.values():
                named |= set(re.findall(r"\b[A-Z][A-Za-z]+", str(text)))
    known = {"Any", "Self", "Mapping", "None", "TracebackType", "BaseException", "True", "False"}
    assert {"PartitionStatus", "ParkedRecord", "ParkedFilter"} <= named
    assert named - known <= set(headwater.__all__)
