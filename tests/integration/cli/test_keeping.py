"""The commands that keep a large store, as programs use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.cli.test_cli import answer
from tests.plugins.command_line import headwater
from tests.plugins.events import events


@pytest.fixture
async def filled(partitioned_url: str) -> str:
    """The URL of a store in ranges of 16 positions, with 50 events."""
    async with await PostgresEventStore.open(partitioned_url) as store:
        await store.append("s-1", events(30))
        await store.append("s-2", events(20))
    return partitioned_url


def test_a_store_is_made_in_ranges(empty_database_url: str) -> None:
    assert answer(empty_database_url, "create", "--partition-size", "100")
    assert [each["last_position"] for each in answer(empty_database_url, "ranges")] == [100, 200]
    assert answer(empty_database_url, "partition", "--size", "5") == {"partitioned": False, "size": 5}


def test_ranges_go_into_the_archive_and_come_back(filled: str, tmp_path: Path) -> None:
    archive = ("--archive", str(tmp_path / "archive"))
    planned = answer(filled, "archive", "--before", "40", *archive, "--dry-run")
    assert [(each["last_position"], each["state"]) for each in planned] == [(16, "closed"), (32, "closed")]
    assert answer(filled, "archive", "--before", "2001-01-01", *archive) == []
    moved = answer(filled, "archive", "--before", "40", *archive)
    assert [(each["last_position"], each["state"], each["events"]) for each in moved] == [
        (16, "archived", 16),
        (32, "archived", 16),
    ]
    assert [each["state"] for each in answer(filled, "verify", *archive)] == ["archived", "archived"]
    assert answer(filled, "erase", *archive) == []
    assert [each["first_position"] for each in answer(filled, "restore", "--after", "20", *archive)] == [17]
    (tmp_path / "archive" / moved[0]["file"]).write_bytes(b"")
    damaged = headwater("verify", *archive, HEADWATER_DATABASE_URL=filled)
    assert damaged.returncode == 1
    assert "damaged" in damaged.stdout


def test_a_policy_of_retention_is_shown_before_it_is_applied(filled: str) -> None:
    planned = answer(filled, "retain", "--category", "s", "--max-count", "25", "--dry-run")
    assert [(each["stream"], each["keep_from"], each["removed"]) for each in planned] == [("s-1", 6, None)]
    done = answer(filled, "retain", "--category", "s", "--max-count", "25")
    assert [each["removed"] for each in done] == [5]
    assert answer(filled, "retain", "--stream", "s-2", "--max-age-days", "1") == []


def test_the_roles_are_listed(filled: str) -> None:
    assert [role["kind"] for role in answer(filled, "roles", "--make")] == ["admin", "append", "run"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["archive", "--before", "40"], "HEADWATER_ARCHIVE"),
        (["archive", "--before", "yesterday"], "neither a number nor a time"),
        (["archive"], "--before"),
        (["partition", "--size", "0"], "--size"),
        (["retain", "--stream", "s-1"], "max_age or max_count"),
        (["retain", "--max-count", "1"], "a stream or a category"),
        (["roles", "--grant", "run"], "--login"),
        (["roles", "--grant", "owner", "--login", "me"], "append, run, admin"),
        (["roles", "--revoke", "run", "--login", "nobody-of-that-name"], "does not exist"),
    ],
)
def test_bad_input_is_answered_in_one_line_with_status_2(filled: str, arguments: list[str], says: str) -> None:
    done = headwater(*arguments, HEADWATER_DATABASE_URL=filled)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert says in done.stderr


def test_a_store_without_ranges_is_told_how_to_get_them(database_url: str) -> None:
    done = headwater("ranges", HEADWATER_DATABASE_URL=database_url)
    assert done.returncode == 2
    assert "headwater partition" in done.stderr
