"""The checker and the judge report what is planted: they could fail, so that they pass means something."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from headwater import NewEvent, connect
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from tests.chaos import database
from tests.chaos.campaign import Outcome
from tests.chaos.catalogue import EVERYTHING
from tests.chaos.checker import Checker
from tests.chaos.faults.hosts import FreezeHost, HandOver, KillHost, KillLeaseSession
from tests.chaos.journal import Note, parse
from tests.chaos.owners import OLD_EPOCH, Double
from tests.chaos.programs import app as programs
from tests.chaos.programs.writer import make
from tests.chaos.report import Part, most_again, percentile, rows, table
from tests.chaos.running import conclude


def note(
    *events: tuple[int, int], epoch: int = 1, time: float = 0.0, subscription: str = "follow", process: int = 1
) -> Note:
    """Make a note of events given as (position, number of the stream)."""
    positions, streams = array("q", [position for position, _ in events]), array("q", [stream for _, stream in events])
    return Note(time, subscription, 0, 0, epoch, time, process, positions, streams, time)


def checked(*notes: Note) -> Checker:
    checker = Checker(["follow"])
    for each in notes:
        checker.feed(each)
    return checker


def redelivered(checker: Checker) -> int:
    return sum(number for _, number in checker.redelivered)


def test_what_was_handled_once_and_in_order_is_in_order() -> None:
    checker = checked(note((1, 1), (2, 2)), note((3, 1), (4, 2)))
    assert checker.lost(4) == {}
    assert (checker.out_of_order, checker.redelivered, checker.handled) == ([], [], 4)


def test_an_event_that_nobody_handled_is_lost() -> None:
    checker = checked(note((1, 1), (2, 2)), note((4, 2)))
    assert checker.lost(5) == {"follow": [3, 5]}


def test_an_event_handled_after_a_later_one_of_its_stream_is_out_of_order() -> None:
    checker = checked(note((1, 1), (3, 1)), note((2, 1), (4, 1)))
    assert [position for _, position in checker.out_of_order] == [2]
    assert checker.lost(4) == {}


def test_streams_have_no_order_among_each_other() -> None:
    assert checked(note((2, 2)), note((1, 1))).out_of_order == []


def test_what_is_handled_again_is_redelivered_and_neither_lost_nor_out_of_order() -> None:
    checker = checked(note((1, 1), (2, 1)), note((1, 1), (2, 1), (3, 1), epoch=2))
    assert redelivered(checker) == 2
    assert (checker.out_of_order, checker.lost(3)) == ([], {})


def test_a_note_that_is_torn_by_a_kill_is_not_read() -> None:
    assert parse(b"x" * 10) == ([], 0)


def outcome(
    kind: str, head: int, begun: float, takeover: float = 0.1, frozen: tuple[int, ...] = (), fenced: float = 0.0
) -> Outcome:
    times = {"takeover": takeover, "effect": 0.0, "length": 1.0, "begun": begun, "seen": begun + 0.5}
    return Outcome(
        number=1,
        kind=kind,
        world="hosts",
        head=head,
        concerned=(("follow", 0),),
        stale=1,
        slowest=("follow", 0),
        frozen=frozen,
        fenced=fenced,
        planned=kind == HandOver.name,
        **times,
    )


def test_the_table_blames_the_fault_before_it_for_what_went_wrong() -> None:
    part = Part("hosts", [outcome(KillHost.name, 10, 1.0, 0.2), outcome(FreezeHost.name, 20, 2.0, 2.5)])
    part.lost = {"follow": [15, 25, 26]}
    part.redelivered = [(1.5, ("follow", 0), 2, 3), (2.5, ("follow", 0), 3, 4), (2.6, ("parts", 1), 2, 5)]
    part.out_of_order = [(1.7, "follow", 12)]
    killed, frozen = rows([part], EVERYTHING)
    assert [killed[name] for name in ("redelivered", "lost", "out of order", "stale writes")] == [3, 1, 1, 1]
    assert [frozen[name] for name in ("redelivered", "lost", "out of order", "stale writes")] == [4, 2, 0, 1]
    assert "host frozen" in table([killed, frozen])
    assert len(part.verdicts) == 2


def test_the_table_counts_double_owner_deliveries_by_the_fault_before_them() -> None:
    part = Part("hosts", [outcome(KillHost.name, 10, 1.0), outcome(FreezeHost.name, 20, 2.0)])
    part.double = [Double(1.5, ("follow", 0), 1, 7, OLD_EPOCH)]
    part.late = [Double(2.5, ("follow", 0), 1, 7, OLD_EPOCH)]
    assert [(row["double owner"], row["late"]) for row in rows([part], EVERYTHING)] == [(1, 0), (0, 1)]
    assert ["double-owner" in verdict for verdict in part.verdicts] == [True]


# One owner at a time


def verdicts(*notes: Note, outcomes: Sequence[Outcome] = (), with_actors: Sequence[str] = ()) -> list[str]:
    """Return what a run says that made these faults and whose handlers noted this."""
    checker, part = Checker(["follow"], with_actors), Part("hosts", list(outcomes))
    for each in notes:
        checker.feed(each)
    conclude(part, checker)
    return part.verdicts


def turns(number: int, former: int, later: int) -> list[Note]:
    """Make the notes of two owners that both handle every event, in turns, under these epochs."""
    return [
        note((position, 1), epoch=epoch, time=position + process / 10, process=process)
        for position in range(1, number + 1)
        for process, epoch in ((1, former), (2, later))
    ]


def test_one_owner_after_another_is_right() -> None:
    first = note((1, 1), (2, 1), time=1)
    assert verdicts(first, note((2, 1), (3, 1), epoch=2, time=2, process=2)) == []


def test_two_owners_at_once_are_reported() -> None:
    [verdict] = verdicts(*turns(100, 1, 2))
    assert "99 double-owner deliveries" in verdict


def test_an_epoch_that_was_granted_twice_is_reported() -> None:
    [verdict] = verdicts(*turns(100, 1, 1))
    assert "double-owner deliveries" in verdict


def test_a_second_process_of_an_epoch_is_reported_although_the_first_is_gone() -> None:
    [verdict] = verdicts(note((1, 1), time=1), note((2, 1), time=2, process=2))
    assert "second process" in verdict


def test_a_former_owner_that_begins_new_events_is_reported() -> None:
    notes = [note((at, 1), epoch=1 + (at + 1) % 2, time=at, process=1 + (at + 1) % 2) for at in range(1, 6)]
    [verdict] = verdicts(*notes)
    assert "2 double-owner deliveries" in verdict


def test_the_order_is_that_of_the_clock_and_not_the_one_in_which_notes_are_read() -> None:
    first, second = note((1, 1), time=1), note((2, 2), epoch=2, time=2, process=2)
    assert verdicts(second, first) == []


def thawed(number: int) -> list[Note]:
    """Make the notes of an owner, its successor, and then so many more of the first one."""
    notes = [note((1, 1), time=1), note((1, 1), epoch=2, time=4, process=2)]
    return notes + [note((1, 1), time=5 + again) for again in range(number)]


FROZEN = outcome(FreezeHost.name, 0, 2.0, frozen=(1,))


def test_what_a_process_was_frozen_with_may_begin_when_it_thaws_and_nothing_after_it() -> None:
    assert verdicts(*thawed(1), outcomes=[FROZEN]) == []
    [verdict] = verdicts(*thawed(2), outcomes=[FROZEN])
    assert "1 double-owner deliveries" in verdict


def test_what_begins_between_the_fault_and_its_effect_is_not_what_a_process_was_frozen_with() -> None:
    before = note((1, 1), time=2.4)
    assert verdicts(before, *thawed(1), outcomes=[FROZEN]) == []


@pytest.mark.parametrize("fault", [outcome(KillHost.name, 0, 2.0), outcome(FreezeHost.name, 0, 2.0, frozen=(3,))])
def test_what_was_not_frozen_may_begin_nothing(fault: Outcome) -> None:
    [verdict] = verdicts(*thawed(1), outcomes=[fault])
    assert "1 double-owner deliveries" in verdict


def test_an_owner_whose_session_was_ended_may_go_on_only_until_it_must_have_noticed() -> None:
    assert verdicts(*thawed(2), outcomes=[outcome(KillLeaseSession.name, 0, 2.0, fenced=6.0)]) == []
    [verdict] = verdicts(*thawed(2), outcomes=[outcome(KillLeaseSession.name, 0, 2.0, fenced=5.5)])
    assert "1 double-owner deliveries" in verdict


def test_actors_may_be_replaced_under_an_epoch_and_their_predecessors_begin_nothing() -> None:
    notes = [note((1, 1), time=1), note((2, 1), time=2, process=2)]
    assert verdicts(*notes, with_actors=["follow"]) == []
    [verdict] = verdicts(*notes, note((3, 1), time=3), with_actors=["follow"])
    assert "former process" in verdict


# What is handled again


MOST = next(most_again(each.options) for each in programs.app.registrations if each.name == "follow")


def handled_again(number: int) -> list[Note]:
    events = [(position, 1) for position in range(1, MOST + 2)]
    return [note(*events, time=1), note(*events[:number], epoch=2, time=2, process=2)]


def test_a_takeover_may_bring_again_what_was_in_flight_or_not_saved_and_no_more() -> None:
    assert verdicts(*handled_again(MOST)) == []
    [verdict] = verdicts(*handled_again(MOST + 1))
    assert f"{MOST + 1} events handled again" in verdict


def test_a_planned_hand_over_may_bring_nothing_again() -> None:
    assert verdicts(*handled_again(1), outcomes=[outcome(KillHost.name, 0, 1.5)]) == []
    [verdict] = verdicts(*handled_again(1), outcomes=[outcome(HandOver.name, 0, 1.5)])
    assert "1 events handled again by 'planned hand-over'" in verdict


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.99, 4), (0.01, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile([3, 1, 4, 2], share) == value


# The judge in the database


@pytest.fixture
def judged(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A store with one registered subscription of each kind, three events, and the judge."""

    async def prepare() -> None:
        async with connect(database_url) as store, await Client.open(_options(database_url)) as client:
            await client.register(programs.app)
            await store.append("order-1", [make(1, 1), make(1, 2)])
            await store.append("order-2", [make(1, 3)])

    asyncio.run(prepare())
    with psycopg.connect(database_url, autocommit=True) as conn:
        database.install(conn)
        conn.execute('UPDATE "headwater"."partitions" SET "epoch" = 5, "owner" = \'node2-abc\', "checkpoint" = 2')
        yield conn


def _options(url: str) -> ClusterOptions:
    return ClusterOptions(store=StoreOptions(url=url))


def _model(conn: psycopg.Connection[Any], *streams: Sequence[int]) -> None:
    """Write the read model of ``exact``: (number of the stream, events, amount) each."""
    for number, events, amount in streams:
        conn.execute(
            'INSERT INTO "chaos"."totals" VALUES (%s, %s, %s, %s, 1, %s, 0)',
            ["exact", f"order-{number}", events, amount, events],
        )


def _problems(conn: psycopg.Connection[Any], written: int = 3) -> list[str]:
    return database.problems(conn, {1: written}, ("exact",))


def test_a_right_database_has_no_problems(judged: psycopg.Connection[Any]) -> None:
    _model(judged, (1, 2, 3), (2, 1, 3))
    assert _problems(judged) == []
    assert database.stale_writes(judged) == []


@pytest.mark.parametrize("wrong", [(2, 2, 3), (2, 1, 4), (3, 1, 3)])
def test_an_inexact_read_model_is_reported(judged: psycopg.Connection[Any], wrong: tuple[int, int, int]) -> None:
    _model(judged, (1, 2, 3), wrong)
    assert any("the read model of exact is wrong" in problem for problem in _problems(judged))


def test_a_read_model_that_skipped_a_version_on_the_way_is_reported(judged: psycopg.Connection[Any]) -> None:
    _model(judged, (1, 2, 3), (2, 1, 3))
    judged.execute('UPDATE "chaos"."totals" SET "broken" = 1 WHERE "stream" = \'order-1\'')
    assert _problems(judged) == ["the read model of exact is wrong for 1 streams"]


def test_an_event_that_a_writer_knows_to_be_written_and_the_store_has_not_is_reported(
    judged: psycopg.Connection[Any],
) -> None:
    _model(judged, (1, 2, 3), (2, 1, 3))
    assert any("writer 1 has written 4" in problem for problem in _problems(judged, written=4))


def test_a_gap_in_the_positions_is_reported(judged: psycopg.Connection[Any]) -> None:
    judged.execute('ALTER TABLE "headwater"."events" DISABLE TRIGGER USER')
    judged.execute('DELETE FROM "headwater"."events" WHERE "position" = 2')
    assert any("positions have gaps" in problem for problem in _problems(judged))


def test_events_in_another_order_than_they_were_sent_are_reported(judged: psycopg.Connection[Any]) -> None:
    async def append() -> None:
        async with connect(judged.info.dsn and _url(judged)) as store:
            await store.append("order-1", [NewEvent("Placed", {"writer": 1, "number": 1, "amount": 0})])

    asyncio.run(append())
    assert any("out of their stream's order" in problem for problem in _problems(judged))


def _url(conn: psycopg.Connection[Any]) -> str:
    info = conn.info
    return f"postgresql://{info.user}:{info.password}@{info.host}:{info.port}/{info.dbname}"


LEDGER = 'INSERT INTO "chaos"."ledger" VALUES (\'exact\', 0, %s, 1, 2, 2)'
CHECKPOINT = 'UPDATE "headwater"."partitions" SET "checkpoint" = %s'


def test_effects_of_a_former_owner_are_reported_and_those_of_the_owner_are_not(
    judged: psycopg.Connection[Any],
) -> None:
    judged.execute(LEDGER, [5])
    assert database.stale_writes(judged) == []
    judged.execute(LEDGER, [4])
    [(what, _)] = database.stale_writes(judged)
    assert what == "effects of a former owner"


def test_effects_are_judged_when_they_commit(judged: psycopg.Connection[Any]) -> None:
    with judged.transaction(), psycopg.connect(_url(judged), autocommit=True) as other:
        judged.execute(LEDGER, [5])
        other.execute('UPDATE "headwater"."partitions" SET "epoch" = 6')
    assert [what for what, _ in database.stale_writes(judged)] == ["effects of a former owner"]


def test_a_checkpoint_of_another_host_than_the_owner_is_reported(judged: psycopg.Connection[Any]) -> None:
    judged.execute("SET chaos.node = 'node2'")
    judged.execute(CHECKPOINT, [3])
    assert database.stale_writes(judged) == []
    judged.execute("SET chaos.node = 'node1'")
    judged.execute(CHECKPOINT, [4])
    assert {what for what, _ in database.stale_writes(judged)} == {"checkpoint of a former owner"}


def test_a_checkpoint_that_is_set_back_is_reported(judged: psycopg.Connection[Any]) -> None:
    judged.execute(CHECKPOINT, [1])
    assert {what for what, _ in database.stale_writes(judged)} == {"checkpoint set back"}
