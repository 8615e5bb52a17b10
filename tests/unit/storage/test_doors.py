"""The door of a pool: one knocks while nobody answers, all come in together, and a closed one keeps nobody waiting."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from headwater.storage.postgres.pools import Door
from tests.plugins.waiting import until


class Server:
    """Something to connect to."""

    def __init__(self) -> None:
        self.answers = False
        self.tries = 0
        self.knocking = 0
        self.together = 0
        """How many at most have tried at the same time, once each had tried it for the first time."""

    async def connect(self) -> int:
        self.tries += 1
        self.knocking += 1
        if self.tries > 4 and not self.answers:
            self.together = max(self.together, self.knocking)
        try:
            await asyncio.sleep(0)
            if not self.answers:
                raise psycopg.OperationalError("refused")
            return self.tries
        finally:
            self.knocking -= 1


async def test_one_knocks_while_nobody_answers_and_all_come_in_once_somebody_does() -> None:
    server, door = Server(), Door("tested")
    waiting = [asyncio.create_task(door.enter(server.connect)) for _ in range(3)]
    await until(lambda: server.tries >= 8)
    assert server.together == 1
    assert not any(task.done() for task in waiting)
    server.answers = True
    await asyncio.gather(*waiting)


async def test_a_closed_door_lets_those_that_wait_give_up() -> None:
    server, door = Server(), Door("tested")
    waiting = [asyncio.create_task(door.enter(server.connect)) for _ in range(3)]
    await until(lambda: server.tries >= 5)
    door.close()
    for task in waiting:
        with pytest.raises(psycopg.OperationalError):
            await task
    with pytest.raises(psycopg.OperationalError):
        await door.enter(server.connect)
