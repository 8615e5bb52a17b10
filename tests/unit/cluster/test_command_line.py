"""What the command line takes from the environment: where things are, and never what is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from headwater.cluster.cli import cli

SETTINGS = {
    *("HEADWATER_DATABASE_URL", "DATABASE_URL", "HEADWATER_SCHEMA", "HEADWATER_REDIS_URL", "HEADWATER_ARCHIVE"),
    *("HEADWATER_ENCRYPTION", "HEADWATER_NODES", "HEADWATER_ADDRESS", "HEADWATER_NODE", "HEADWATER_JSON"),
    *("HEADWATER_DEV_FOLDER", "HEADWATER_DEV_POSTGRES_PORT", "HEADWATER_DEV_REDIS_PORT"),
}


def commands(command: Any) -> Iterator[Any]:
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from commands(each)


def test_a_forgotten_variable_never_acts() -> None:
    found = set[str]()
    for command in commands(typer.main.get_command(cli)):
        assert not command.context_settings.get("auto_envvar_prefix")
        for option in command.params:
            if option.envvar:
                found |= {option.envvar} if isinstance(option.envvar, str) else set(option.envvar)
    assert found == SETTINGS
