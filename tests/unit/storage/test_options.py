"""Settings from code, URL and environment."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.storage.errors import ConfigurationError
from headwater.storage.options import StoreOptions

URL = "postgresql://shop:secret@db.example:5433/shop"


def test_without_a_url_it_says_how_to_give_one() -> None:
    with pytest.raises(ConfigurationError, match="or set HEADWATER_DATABASE_URL"):
        StoreOptions.read(environment={})


def read(url: str | None = None, environment: dict[str, str] | None = None, **settings: Any) -> StoreOptions:
    return StoreOptions.read(url, environment=environment or {}, **settings)


@pytest.mark.parity("T019", "T020", "T021", "T115")
def test_what_is_not_said_has_a_default() -> None:
    options = read(URL)
    assert (options.schema, options.pool_size, options.timeout) == ("headwater", 10, 15.0)
    assert (options.payload, options.hard_deletes, options.session_url) == ("json", False, None)
    assert not options.through_pooler


@pytest.mark.parity("T023", "T024", "T027")
def test_settings_in_the_url_are_taken_out_of_it() -> None:
    url = "postgresql://u:p%23w@h:1/d?sslmode=require&pool_size=3&timeout=2.5&schema=shop&hard_deletes=true"
    options = read(url)
    assert (options.pool_size, options.timeout, options.schema, options.hard_deletes) == (3, 2.5, "shop", True)
    assert options.url == "postgresql://u:p%23w@h:1/d?sslmode=require"


def test_a_space_in_the_url_stays_one_that_the_driver_understands() -> None:
    assert read("postgresql://u@h/d?options=-c%20a.b%3Dc&pool_size=3").url == "postgresql://u@h/d?options=-c%20a.b%3Dc"


@pytest.mark.parity("T028", "T029", "T030")
def test_everything_can_come_from_the_environment() -> None:
    environment = {
        "HEADWATER_DATABASE_URL": URL,
        "HEADWATER_POOL_SIZE": "7",
        "HEADWATER_TIMEOUT": "1.5",
        "HEADWATER_SCHEMA": "shop",
        "HEADWATER_HARD_DELETES": "yes",
        "HEADWATER_REDIS_URL": "redis://r",
        "HEADWATER_PAYLOAD": "",
    }
    options = read(environment=environment)
    assert (options.url, options.pool_size, options.timeout, options.schema) == (URL, 7, 1.5, "shop")
    assert (options.hard_deletes, options.redis_url, options.payload) == (True, "redis://r", "json")
    assert read(environment={"DATABASE_URL": URL}).url == URL


def test_code_wins_over_the_url_and_the_url_over_the_environment() -> None:
    environment = {"HEADWATER_POOL_SIZE": "1", "HEADWATER_SCHEMA": "one", "HEADWATER_TIMEOUT": "1"}
    options = read(URL + "?pool_size=2&schema=two", environment, pool_size=3)
    assert (options.pool_size, options.schema, options.timeout) == (3, "two", 1.0)


@pytest.mark.parity("T025", "E22")
def test_a_session_url_means_that_the_other_goes_through_a_pooler() -> None:
    options = read(URL, session_url="postgresql://db.example:5432/shop")
    assert options.through_pooler
    assert options.url == URL


@pytest.mark.parity("E25", "E26")
@pytest.mark.parametrize(
    ("url", "settings", "named"),
    [
        ("", {}, "url"),
        ("mysql://h/d", {}, "url"),
        ("postgresql://h", {}, "database"),
        ("postgresql://h:port/d", {}, "url"),
        (URL, {"pool_size": 0}, "pool_size"),
        (URL, {"pool_size": True}, "pool_size"),
        (URL, {"timeout": 0}, "timeout"),
        (URL, {"timeout": "soon"}, "timeout"),
        (URL, {"payload": "xml"}, "payload"),
        (URL, {"hard_deletes": "maybe"}, "hard_deletes"),
        (URL, {"session_url": "h"}, "session_url"),
        (URL, {"colour": "red"}, "colour"),
        (URL + "?pool_size=many", {}, "pool_size"),
        (URL + "?timeout=soon", {}, "timeout"),
        (URL + "?hard_deletes=maybe", {}, "hard_deletes"),
    ],
)
def test_a_setting_that_cannot_work_is_named(url: str, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read(url, **settings)


def test_nothing_secret_is_shown() -> None:
    assert "secret" not in repr(read(URL))
