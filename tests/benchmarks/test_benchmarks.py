"""Every benchmark runs, and did what its figures are about. Nothing here looks at how fast anything was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import __main__ as command
from benchmarks import compare, fill, kept, results
from benchmarks.measure import Case, Sample, Target, WrongCount, measure, percentile
from benchmarks.run import QUESTIONS
from headwater.storage.model import NewEvent
from headwater.storage.postgres.store import PostgresEventStore

INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'events' ORDER BY 1"
IN_A_CLUSTER = ("catch_up", "crowd", "fan_out", "live", "partitions", "takeover")
OUTSIDE = tuple(name for name in QUESTIONS if name not in IN_A_CLUSTER)


def ask(question: str, database: str, redis: str, folder: Path) -> dict[str, Any]:
    """Run one question in quick mode; returns its results as they were written."""
    arguments = [question, "--quick", "--database", database, "--redis", redis, "--out", str(folder)]
    assert command.main(arguments) == 0
    [path] = folder.glob("*/results.json")
    return results.read(path)


def check(found: dict[str, Any], question: str) -> None:
    """Check the shape of the results, and that everybody did what is said of them."""
    assert {"cores", "memory_gib", "kernel", "python", "sync_8kb_us", "load_before", "load_after"} <= set(
        found["machine"]
    )
    assert {"server_version", "fsync", "synchronous_commit"} <= set(found["server"])
    [asked] = found["questions"]
    assert asked["question"] == question
    assert asked["title"].endswith("?")
    assert asked["cases"]
    for case in asked["cases"]:
        for candidate in case["candidates"]:
            assert len(candidate["rounds"]) == found["rounds"]
            for each in candidate["rounds"]:
                assert each["counted"] == each["events"]
                assert each["seconds"] > 0
            for figure in candidate["figures"].values():
                assert figure["min"] <= figure["median"] <= figure["max"]
        for target in case["targets"]:
            assert len(target["rounds"]) == found["rounds"]


@pytest.mark.parametrize("question", OUTSIDE)
def test_a_question_is_answered_by_work_that_was_done(
    question: str, database_server: str, redis_url: str, tmp_path: Path
) -> None:
    found = ask(question, database_server, redis_url, tmp_path)
    check(found, question)
    if any("events/s" in c["figures"] for case in found["questions"][0]["cases"] for c in case["candidates"]):
        assert list(tmp_path.glob(f"*/{question}.png"))


@pytest.mark.slow
@pytest.mark.timeout(900)  # it starts several Ray clusters, beside whatever else the machine does
@pytest.mark.parametrize("question", IN_A_CLUSTER)
def test_a_question_is_answered_in_a_cluster(
    question: str, database_server: str, redis_url: str, tmp_path: Path
) -> None:
    check(ask(question, database_server, redis_url, tmp_path), question)


@pytest.mark.parametrize("many", [10**9, 0], ids=["with its indexes", "indexes at the end"])
async def test_a_filled_store_is_like_one_that_has_grown(
    database_url: str, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(fill, "MANY", many)
    with psycopg.connect(database_url, autocommit=True) as conn:
        before = conn.execute(INDEXES).fetchall()
        names = fill.fill(database_url, 2_000, between=10)
        assert conn.execute(INDEXES).fetchall() == before
    async with await PostgresEventStore.open(database_url) as store:
        assert await store.head() == 2_000
        assert (await store.list_streams()).total_entries == 1 + len(names) == 21
        events = await store.read(names[13])
        assert [event.version for event in events] == list(range(1, 101))
        assert [event.position for event in events] == list(range(1_004, 2_000, 10))
        assert {event.id.version for event in events} == {7}
        # It goes on as any other.
        await store.append(names[13], [NewEvent("Appended")], 100)
        assert (await store.append("new", [NewEvent("Appended")])).last_position == 2_002


@pytest.mark.slow
def test_filled_stores_are_kept_from_one_run_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept, "SERVER_BYTES", 0)
    arguments = ["growth", "--quick", "--keep", str(tmp_path / "kept"), "--out", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    assert "20,000 events are in" in capsys.readouterr().out
    assert command.main(arguments) == 0
    assert "events are in" not in capsys.readouterr().out


def test_a_disk_that_is_too_small_is_told_before_anything_is_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["growth", "--sizes", str(10**15), "--keep", str(tmp_path)])
    assert ended.value.code == 2
    assert "GiB are free" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["no_such_question"], ["compare", "nowhere.json", "nowhere.json"]])
def test_what_cannot_be_asked_is_told_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert words[-1] in capsys.readouterr().err.splitlines()[-1]


def test_work_that_was_not_done_is_no_figure() -> None:
    async def liar() -> Sample:
        return Sample(events=10, counted=9, seconds=1.0)

    with pytest.raises(WrongCount):
        asyncio.run(measure(Case("lies", {"liar": liar}), rounds=1))


def test_candidates_take_turns_and_ratios_are_of_the_same_round() -> None:
    order: list[str] = []

    def candidate(name: str, *seconds: float) -> Any:
        left = list(seconds)

        async def run() -> Sample:
            order.append(name)
            return Sample(100, 100, left.pop(0))

        return run

    case = Case(
        "turns",
        {"a": candidate("a", 1.0, 2.0, 1.0), "b": candidate("b", 2.0, 8.0, 1.0)},
        targets=[Target("a", "b", at_least=2)],
    )
    found = asyncio.run(measure(case, rounds=3, warm_up=False))
    assert order == ["a", "b", "a", "b", "a", "b"]
    [target] = found["targets"]
    assert target["rounds"] == [2.0, 4.0, 1.0]
    assert target["median"] == 2.0
    assert target["met"] is True


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile(list(range(1, 101)), 99) == 99
    assert percentile([7.0], 99) == 7.0


def test_two_runs_differ_only_where_their_spreads_do_not_overlap() -> None:
    slow, fast = {"median": 10.0, "min": 9.0, "max": 11.0}, {"median": 20.0, "min": 18.0, "max": 22.0}
    assert "better" in compare.verdict("events/s", slow, fast)[1]
    assert "worse" in compare.verdict("p99 ms", slow, fast)[1]
    assert "within" in compare.verdict("events/s", slow, {"median": 11.0, "min": 10.5, "max": 12.0})[1]


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format"):
        results.read(path)
