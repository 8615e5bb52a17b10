"""The command line, as a process: answers for people and programs, and bad input in one line with status 2."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headwater import ERASED, App, Encryption, NewEvent, SubscriptionOptions, connect
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import ParkedEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.subscriptions.testing.builders import recorded
from tests.plugins.command_line import headwater

NOWHERE = "postgresql://postgres@127.0.0.1:9/nothing"


def answer(database_url: str, *arguments: str) -> Any:
    done = headwater(*arguments, "--json", HEADWATER_DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
async def registered(database_url: str) -> str:
    """The URL of a store with ten events and a subscription that nobody runs."""
    app = App("shop")
    app.register("totals", "shop:totals", SubscriptionOptions(partitions=2))
    async with connect(database_url) as store:
        await store.append("order-1", [NewEvent("Placed") for _ in range(10)])
    async with await Client.open(ClusterOptions(store=StoreOptions(url=database_url))) as client:
        await client.register(app)
    return database_url


@pytest.fixture
async def two_parked(registered: str) -> str:
    """The same store, with the first two events set aside, as an owner would."""
    options = StoreOptions(url=registered)
    async with connect(registered) as store:
        leases = LeaseSession(options, host="a test", lease=timedelta(seconds=30))
        await leases.open()
        states = await Registry(store.pool, store.sql, store).states("totals")
        grant = (await leases.claim([states[0].key]))[0]
        first, second = await store.read_all(limit=2)
        parked = [ParkedEvent(first, "a", "failed", "it broke", 5), ParkedEvent(second, "b", "failed", "no", 1)]
        await PostgresCheckpoints(store.pool, store.sql).park(grant, parked)
        await leases.close()
    return registered


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no-such-option"], "No such option"),
        (["run", "shop:app", "--warp", "9"], "No such option"),
        (["no-such-command"], "No such command"),
        (["status"], "HEADWATER_DATABASE_URL"),
        (["status", "--database-url", "http://127.0.0.1/x"], "postgresql://"),
        (["status", "--database-url", NOWHERE], "port 9"),
        (["run", "no_such_module:app", "--database-url", NOWHERE], "No module named 'no_such_module'"),
        (["run", "headwater:App", "--database-url", NOWHERE], "is not an App"),
        (["run", "broken:app"], "cannot import 'broken:app': ValueError: first line"),
        (["run", "needy:app"], "of_three takes (event, context, table): a handler takes (event) or (event, context)"),
        (["run", "./shop.py:app"], "names a file: write the module's name, 'shop:app'"),
        (["run", "lost:app"], "cannot import 'elsewhere:handle'"),
        (["run", "--nodes", "2", "--address", "here", "--database-url", NOWHERE], "not both"),
        (["run", "--nodes", "many"], "'--nodes'"),
        (["run", "--nodes", "0", "--database-url", NOWHERE], "0 is no number of Ray nodes: leave it out"),
        (["run", "--nodes", "-1", "--database-url", NOWHERE], "-1 is no number of Ray nodes"),
        (["dev", "--folder", ""], "folder: must not be empty"),
        (["dev", "--redis-port", "55432"], "redis-port: 55432 is Postgres's already"),
        (["dev", "--postgres-port", "70000"], "70000 is not a port"),
        (["drop", "--database-url", NOWHERE], "--yes"),
        (["forget", "ada", "--database-url", NOWHERE], "--yes"),
        (["forget", "ada", "--yes", "--encryption", "lost:way", "--database-url", NOWHERE], "cannot import 'lost:way'"),
        (["rewrap", "--database-url", NOWHERE], "HEADWATER_MASTER_KEYS"),
    ],
)
def test_bad_input_is_answered_in_one_line_with_status_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('first line\\nsecond line')")
    (tmp_path / "needy.py").write_text(
        "from headwater import App, SubscriptionOptions\n"
        "app = App('shop')\n"
        "app.register('totals', 'needy:of_three', SubscriptionOptions())\n"
        "def of_three(event, context, table): ...\n"
    )
    (tmp_path / "lost.py").write_text(
        "from headwater import App, SubscriptionOptions\n"
        "app = App('shop')\n"
        "app.register('totals', 'elsewhere:handle', SubscriptionOptions())\n"
    )
    done = headwater(*arguments, cwd=tmp_path if "run" in arguments else None)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_the_list_of_commands_can_be_read_in_a_narrow_terminal() -> None:
    listed = headwater("--help", COLUMNS="80").stdout
    assert headwater(COLUMNS="80").stdout == listed
    assert "..." not in listed.partition("Commands:")[2]
    assert "Run an app's subscriptions until interrupted." in listed
    assert headwater("--version").stdout == f"headwater {metadata.version('headwater')}\n"


def test_a_missing_schema_is_answered_in_one_line_with_status_2(empty_database_url: str) -> None:
    for arguments in (["status"], ["run"], ["subscriptions"], ["pause", "totals"]):
        done = headwater(*arguments, "--database-url", empty_database_url)
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1
        assert "headwater migrate" in done.stderr


@pytest.mark.parametrize(("option", "other"), [("postgres-port", "redis-port"), ("redis-port", "postgres-port")])
def test_a_port_that_is_taken_is_said_with_the_option_that_mends_it(option: str, other: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = headwater("dev", "--folder", "data", f"--{option}", port, f"--{other}", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert f"headwater dev --{option} PORT" in done.stderr


def test_a_ray_cluster_that_is_not_there_is_said_in_one_line_with_status_2(database_url: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        done = headwater("run", "--address", address, "--database-url", database_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"nobody answers at '{address}' (Connection refused)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_store_is_made_migrated_and_removed(empty_database_url: str) -> None:
    pending = answer(empty_database_url, "migrate", "--dry-run")
    assert pending
    applied = answer(empty_database_url, "migrate")
    assert [m["number"] for m in applied] == [m["number"] for m in pending]
    assert answer(empty_database_url, "migrate") == []
    assert answer(empty_database_url, "status")["head"] == 0
    assert answer(empty_database_url, "drop", "--yes") == {"removed": True}


@pytest.mark.parity("L30")
def test_what_is_registered_can_be_seen_when_nobody_runs_it(registered: str) -> None:
    status = answer(registered, "status")
    assert (status["head"], status["hosts"], status["partitions"], status["unowned"], status["lag"]) == (
        10,
        0,
        2,
        2,
        10,
    )
    rows = answer(registered, "subscriptions")
    assert [(row["subscription"], row["partition"], row["phase"]) for row in rows] == [
        ("totals", 0, "unowned"),
        ("totals", 1, "unowned"),
    ]
    assert rows[0]["reason"] == "no host holds its lease: no host is alive"
    assert rows[0]["lag_seconds"] > 0
    assert answer(registered, "nodes") == []


def test_tables_are_for_people(registered: str) -> None:
    done = headwater("subscriptions", "--database-url", registered)
    assert done.returncode == 0
    assert "no host holds its lease" in done.stdout


def test_subscriptions_can_be_read_in_a_narrow_terminal_and_what_is_left_out_is_said(registered: str) -> None:
    narrow = headwater("subscriptions", HEADWATER_DATABASE_URL=registered, COLUMNS="60").stdout
    assert all(len(line) <= 60 for line in narrow.splitlines())
    assert ["totals/1", "unowned", "-", "-", "10"] in [line.split()[:5] for line in narrow.splitlines()]
    assert "no host holds its lease: no host is alive" in " ".join(narrow.split())
    left_out = "Not shown: since, checkpoint, delivered, redelivered, parked ever, epoch, consumers, pulled."
    assert left_out in " ".join(narrow.split())
    wide = headwater("subscriptions", "--wide", HEADWATER_DATABASE_URL=registered, COLUMNS="60").stdout
    head, _, *rows = wide.splitlines()
    assert len(rows) == 2
    assert all(row.count("no host is alive") == 1 for row in rows)
    for name in answer(registered, "subscriptions")[0].keys() - {"parked_more"}:  # people see it as a plus
        assert name.replace("_", " ") in head


def test_a_dry_run_asks_for_nothing(registered: str) -> None:
    told = answer(registered, "rewind", "totals", "--to", "3", "--dry-run")
    assert (told["command"], told["arguments"], told["number"], told["dry_run"]) == ("rewind", {"to": 3}, 2, True)
    assert (told["again"], told["skipped"]) == (0, 3)
    assert answer(registered, "pause", "totals", "--dry-run")["number"] == 2
    assert answer(registered, "subscriptions")[0]["phase"] == "unowned"


def test_a_subscription_is_stopped_without_deleting_it_and_resumed(registered: str) -> None:
    assert answer(registered, "stop", "totals", "--dry-run")["number"] == 2
    assert answer(registered, "status")["phases"] == {"unowned": 2}
    assert answer(registered, "stop", "totals")["command"] == "stop"
    assert answer(registered, "status")["phases"] == {"stopped": 2}
    answer(registered, "resume", "totals")
    assert answer(registered, "status")["phases"] == {"unowned": 2}


def test_another_number_of_partitions_is_asked_for_and_shown(registered: str) -> None:
    asked = {"subscription": "totals", "partitions": 2, "to": 5}
    assert answer(registered, "repartition", "totals", "5", "--dry-run") == {**asked, "dry_run": True}
    assert answer(registered, "status")["phases"] == {"unowned": 2}
    assert answer(registered, "repartition", "totals", "5") == {**asked, "dry_run": False}
    assert answer(registered, "status")["phases"] == {"repartitioning": 2}
    assert answer(registered, "subscriptions")[0]["reason"].startswith("becomes one of 5 partitions")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["repartition", "nothing", "3"], "no subscription named 'nothing'"),
        (["repartition", "totals", "3", "--wait", "0.1"], "still has 2 partitions"),
        (["pause", "nothing"], "no subscription named 'nothing'; there are 'totals'"),
        (["pause", "totl"], "no subscription named 'totl'; did you mean 'totals'?"),
        (["delete", "totl", "--yes"], "no subscription named 'totl'; did you mean 'totals'?"),
        (["parked", "nothing"], "no subscription named 'nothing'"),
        (["rewind", "totals", "--to", "yesterday"], "neither a number nor a time"),
        (["rewind", "totals"], "'--to'"),
        (["rewind", "totals", "--to", "-1"], "to: must be from 0"),
        (["replay", "totals", "--from", "0"], "from: must be from 1"),
        (["parked", "totals", "--rate", "5"], "rate: --rate says how fast --retry delivers"),
        (["parked", "totals", "--reason", "why"], "reason: --reason says why something is done"),
        (["rewind", "totals", "--to", "11"], "11 is above the head, which is 10"),
        (["rewind", "totals", "--to", "3", "--partition", "7"], "totals/7"),
        (["move", "totals", "--to", "nowhere"], "no host is alive on a node 'nowhere'"),
        (["drain", "nowhere"], "no host is alive on 'nowhere'"),
        (["parked", "totals", "--retry", "--discard"], "not several"),
    ],
)
def test_a_command_that_means_nothing_is_refused(registered: str, arguments: list[str], says: str) -> None:
    done = headwater(*arguments, "--database-url", registered)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


async def test_a_subject_is_forgotten_and_keys_are_wrapped_anew(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (f"{name}:{base64.b64encode(os.urandom(32)).decode()}" for name in ("old", "new"))
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", old)
    async with connect(database_url, encryption=Encryption()) as store:
        await store.append("a", [NewEvent("Registered", {"name": name}, subject=name) for name in ("ada", "bob")])

    def run(*arguments: str) -> Any:
        return answer(database_url, *arguments)

    loop = asyncio.get_running_loop()
    known = {"subject": "ada", "known": True, "forgotten": False, "dry_run": True}
    assert await loop.run_in_executor(None, run, "forget", "ada", "--dry-run") == known
    gone = {"subject": "ada", "known": True, "forgotten": True, "dry_run": False}
    assert await loop.run_in_executor(None, run, "forget", "ada", "--yes") == gone
    again = {"subject": "ada", "known": False, "forgotten": False, "dry_run": False}
    assert await loop.run_in_executor(None, run, "forget", "ada", "--yes") == again
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", f"{new},{old}")
    assert await loop.run_in_executor(None, run, "rewrap") == {"rewrapped": 1}
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", new)
    async with connect(database_url, encryption=Encryption()) as store:
        assert [event.data for event in await store.read("a")] == [ERASED, {"name": "bob"}]


def test_parked_events_are_looked_at_corrected_and_tried_again(two_parked: str) -> None:
    registered = two_parked
    assert [row["position"] for row in answer(registered, "parked", "totals")] == [1, 2]
    assert [row["position"] for row in answer(registered, "parked", "totals", "--error", "broke")] == [1]
    told = answer(registered, "parked", "totals", "--position", "1", "--edit", '{"n": 1}', "--dry-run")
    assert (told["before"], told["after"]) == (None, {"n": 1})
    assert answer(registered, "parked", "totals", "--position", "1")["edits"] == []
    for data in ('{"n": 1}', '{"n": 2}'):
        answer(registered, "parked", "totals", "--position", "1", "--edit", data, "--reason", "was wrong")
    found = answer(registered, "parked", "totals", "--position", "1")
    assert (found["error"], found["attempts"], found["data"], found["edited"]) == ("it broke", 5, None, True)
    assert [(e["before"], e["after"], e["reason"]) for e in found["edits"]] == [
        (None, {"n": 1}, "was wrong"),
        ({"n": 1}, {"n": 2}, "was wrong"),
    ]
    assert answer(registered, "parked", "totals", "--retry", "--dry-run")["positions"] == [1, 2]
    told = answer(registered, "parked", "totals", "--retry", "--limit", "1", "--rate", "5", "--reason", "one first")
    assert (told["positions"], told["left"]) == ([1], 1)
    assert answer(registered, "parked", "totals", "--cancel")["positions"] == [1]
    assert answer(registered, "parked", "totals", "--discard", "--key", "b")["positions"] == [2]
    audit = answer(registered, "audit", "totals")
    assert [each["verb"] for each in audit] == [
        "discard parked", "cancel retry", "retry parked", "edit parked", "edit parked",
    ]  # fmt: skip
    assert audit[2]["arguments"] == {"limit": 1, "rate": 5.0, "reason": "one first"}
    assert (audit[3]["edit"]["before"], audit[3]["edit"]["after"]) == ({"n": 1}, {"n": 2})
    assert answer(registered, "audit", "--limit", "2") == audit[:2]
    assert answer(registered, "audit", "totals", "--since", audit[1]["issued_at"]) == audit[:2]
    words = headwater("audit", "totals", "--database-url", registered).stdout
    assert 'position 1: {"n":1} -> {"n":2}' in words
    for arguments, says in [
        (("--edit", "{"), "is not JSON"),
        (("--edit", "{}"), "--position"),
        (("--position", "9", "--edit", "{}"), "9 is not parked"),
        (("--retry", "--rate", "0"), "above 0"),
        (("--retry", "--release"), "--discard"),
        (("--discard", "--rate", "5"), "--retry"),
        (("--cancel", "--limit", "5"), "--limit"),
    ]:
        done = headwater("parked", "totals", *arguments, "--database-url", registered)
        assert done.returncode == 2
        assert says in done.stderr


def test_a_parked_event_is_shown_in_words_and_its_payload_as_json(two_parked: str) -> None:
    def told(*arguments: str) -> str:
        done = headwater("parked", "totals", "--position", "1", *arguments, "--database-url", two_parked)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def line(name: str) -> str:
        return next(each for each in told().splitlines() if each.startswith(f"{name} ")).removeprefix(name).strip()

    assert line("data") == "null"
    assert "edits" not in told()
    changed = told("--edit", '"10"', "--reason", "was [bold] wrong")
    assert ["after", '"10"'] in [each.split() for each in changed.splitlines()]
    assert (line("data"), line("corrected data")) == ("null", '"10"')
    told("--edit", '{"n": [10]}')
    assert line("corrected data") == '{"n":[10]}'
    first, second = (each.strip() for each in told().splitlines()[-2:])
    assert '(was [bold] wrong): null -> "10"' in first
    assert second.endswith(': "10" -> {"n":[10]}')
    assert "datetime" not in told()


def test_lists_and_stores_are_shown_in_words(two_parked: str) -> None:
    done = headwater("parked", "totals", "--retry", "--dry-run", "--database-url", two_parked)
    assert ["positions", "1,", "2"] in [each.split() for each in done.stdout.splitlines()]
    done = headwater("parked", "totals", "--retry", "--key", "no", "--database-url", two_parked)
    assert ["positions", "-"] in [each.split() for each in done.stdout.splitlines()]
    refused = headwater("drop", "--database-url", "postgresql://ada:secret@somewhere/shop").stderr
    assert "every event in schema 'headwater' of database 'shop' on somewhere: say --yes" in refused
    assert "secret" not in refused
    refused = headwater("drop", "--database", "--database-url", "postgresql://somewhere/shop").stderr
    assert "every event in the whole database 'shop' on somewhere: say --yes" in refused


async def many_parked(url: str, count: int) -> None:
    """Set events of one key aside, of which only the first has failed."""
    async with connect(url) as store:
        leases = LeaseSession(StoreOptions(url=url), host="a test", lease=timedelta(seconds=30))
        await leases.open()
        states = await Registry(store.pool, store.sql, store).states("totals")
        grant = (await leases.claim([states[0].key]))[0]
        await PostgresCheckpoints(store.pool, store.sql).park(
            grant,
            [
                ParkedEvent(recorded(n), "a", "behind" if n > 1 else "failed", None if n > 1 else "it broke", 1)
                for n in range(1, count + 1)
            ],
        )
        await leases.close()


async def test_without_a_limit_all_that_is_parked_is_meant_and_both_numbers_are_said(registered: str) -> None:
    await many_parked(registered, 1201)
    loop = asyncio.get_running_loop()

    async def told(*arguments: str) -> dict[str, Any]:
        counts: dict[str, Any] = await loop.run_in_executor(None, answer, registered, "parked", "totals", *arguments)
        return {name: value for name, value in counts.items() if "position" not in name and name != "subscription"}

    tried = {"command": "retry", "number": 1201, "earlier": 0, "behind": 0, "left": 0, "dry_run": True}
    assert await told("--retry", "--dry-run") == tried
    assert await told("--retry", "--position", "1", "--dry-run") == tried | {"behind": 1200}
    given_up = {"command": "discard", "number": 1, "to_deliver": 0, "under_way": 0, "left": 1200, "dry_run": True}
    assert await told("--discard", "--position", "1", "--dry-run") == given_up
    released = given_up | {"to_deliver": 1200, "left": 0}
    assert await told("--discard", "--position", "1", "--release", "--dry-run") == released
    assert await told("--discard") == given_up | {"number": 1201, "left": 0, "dry_run": False}


def test_what_is_parked_now_is_counted_and_what_ever_was_by_another_name(two_parked: str) -> None:
    def counted() -> tuple[int, list[int], list[int]]:
        rows = answer(two_parked, "subscriptions")
        now, ever = [row["parked"] for row in rows], [row["parked_ever"] for row in rows]
        return answer(two_parked, "status")["parked"], now, ever

    assert counted() == (2, [2, 0], [2, 0])
    answer(two_parked, "parked", "totals", "--retry", "--key", "a")
    assert counted() == (2, [2, 0], [2, 0]), "it is still to be handled again"
    answer(two_parked, "parked", "totals", "--discard", "--key", "a")
    assert counted() == (1, [1, 0], [2, 0])
    answer(two_parked, "parked", "totals", "--discard")
    assert headwater("parked", "totals", "--database-url", two_parked).stdout == "Nothing is parked.\n"
    assert counted() == (0, [0, 0], [2, 0])


def test_a_wait_ends_with_what_was_settled_or_with_the_reason(registered: str) -> None:
    done = headwater("wait", "totals", "--timeout", "0", "--database-url", registered)
    assert done.returncode == 2
    assert "has not settled position 10" in done.stderr
    assert "no host holds its lease" in done.stderr
    assert answer(registered, "wait", "totals", "0") == {"subscription": "totals", "settled": 0}


def test_a_dry_run_of_a_replay_tells_the_range_and_asks_for_nothing(registered: str) -> None:
    with psycopg.connect(registered) as conn:
        conn.execute('UPDATE "headwater"."partitions" SET "checkpoint" = CASE "partition" WHEN 0 THEN 4 ELSE 8 END')
    dry = {"subscription": "totals", "command": "replay", "dry_run": True}
    assert answer(registered, "replay", "totals", "--dry-run") == {**dry, "number": 2, "from": 1, "to": 8}
    for arguments, expected in [
        (("--from", "3", "--to", "6"), {"number": 2, "from": 3, "to": 6}),
        (("--from", "6"), {"number": 1, "from": 6, "to": 8}),
        (("--from", "2000-01-01T00:00:00Z", "--to", "100"), {"number": 2, "from": 1, "to": 8}),
    ]:
        assert answer(registered, "replay", "totals", *arguments, "--dry-run") == {**dry, **expected}
    assert answer(registered, "replays") == []
    done = headwater("replay", "totals", "--from", "9", "--dry-run", "--database-url", registered)
    assert (done.returncode, "nothing after 8 was handled" in done.stderr) == (2, True)
    asked = answer(registered, "replay", "totals")
    assert (asked["number"], asked["dry_run"]) == (2, False)
    told = answer(registered, "replay", "totals", "--cancel", "--dry-run")
    assert (told["number"], told["command_ids"]) == (2, asked["command_ids"])
    assert answer(registered, "replay", "totals", "--cancel")["number"] == 2, "the dry run took nothing back"
    assert answer(registered, "replay", "totals", "--cancel")["number"] == 0


def test_ranges_and_new_versions_are_asked_for_listed_and_taken_back(two_parked: str) -> None:
    url = two_parked
    told = answer(url, "rewind", "totals", "--to", "3", "--no-side-effects", "--dry-run")
    assert (told["side_effects"], told["number"]) == (False, 2)
    assert answer(url, "replays") == answer(url, "replacements") == []
    asked = ("replace", "totals", "totals-v2", "--handler", "shop:other", "--no-import")
    told = answer(url, *asked, "--dry-run")
    assert told == {"command": "replace", "old": "totals", "new": "totals-v2", "dry_run": True}
    assert [row["subscription"] for row in answer(url, "subscriptions")] == ["totals", "totals"]
    assert answer(url, *asked) == {**told, "dry_run": False}
    (row,) = answer(url, "replacements")
    assert (row["phase"], row["events_to_go"]) == ("catching up", 0)
    assert answer(url, "status")["replacing"] == {"totals-v2": "catching up, 0 to go, 0 s"}
    answer(url, "replace", "totals", "totals-v2", "--cancel")
    assert answer(url, "replacements")[0]["phase"] == "cancelled"
    for arguments, says in [
        (("replay", "totals", "--from", "1"), "nothing after 0 was handled"),
        (("replay", "totals", "--from", "5", "--to", "4"), "is no range"),
        (("replay", "nothing"), "no subscription named 'nothing'"),
        (("replace", "totals", "totals-v3", "--handler", "no_such_module:other"), "No module named 'no_such_module'"),
        (("replace", "totals", "totals-v3", "--handler", "headwater:typo"), "cannot import 'headwater:typo'"),
        (("replace", "totals", "totals-v2", "--cancel", "--dry-run"), "is not about to replace"),
        (("replace", "nothing", "totals"), "no subscription named 'nothing'"),
        (("replace", "totals", "nothing"), "no subscription named 'nothing'"),
        (("replace", "totals", "totals"), "cannot replace itself"),
        (("replace", "totals", "totals-v2", "--cancel"), "is not about to replace"),
    ]:
        done = headwater(*arguments, "--database-url", url)
        assert done.returncode == 2
        assert says in done.stderr


async def test_a_rewind_says_what_comes_again_and_what_is_skipped(registered: str) -> None:
    options = ClusterOptions(store=StoreOptions(url=registered))
    app = App("other")
    app.register("one", "shop:one", SubscriptionOptions(source="invoice-1"))
    app.register("late", "shop:late", SubscriptionOptions(start=7))
    async with connect(registered) as store, await Client.open(options) as client:
        await store.append("invoice-1", [NewEvent("Sent") for _ in range(3)])
        await client.register(app)
        with pytest.raises(InvalidArgument, match="4 is above the version of 'invoice-1', which is 3"):
            await client.rewind("one", 4)
        assert await client.rewind("one", 3, dry_run=True) == 3
        with pytest.raises(InvalidArgument, match="14 is above the head, which is 13"):
            await client.rewind("late", 14)

    def counts(*arguments: str) -> tuple[int, int]:
        told = answer(registered, "rewind", *arguments)
        return told["again"], told["skipped"]

    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, counts, "late", "--to", "2", "--dry-run") == (5, 0)
    assert await loop.run_in_executor(None, counts, "late", "--to", "9") == (0, 2)


def test_a_subscription_is_deleted_once_that_is_said_twice(registered: str) -> None:
    refused = headwater("delete", "totals", HEADWATER_DATABASE_URL=registered)
    assert (refused.returncode, "say --yes" in refused.stderr) == (2, True)
    would = {"subscription": "totals", "partitions": 2, "parked": 0, "parked_more": False, "dry_run": True}
    assert answer(registered, "delete", "totals", "--dry-run") == would
    assert answer(registered, "delete", "totals", "--yes") == {**would, "dry_run": False}
    again = headwater("delete", "totals", "--yes", HEADWATER_DATABASE_URL=registered)
    assert (again.returncode, "totals" in again.stderr) == (2, True)
