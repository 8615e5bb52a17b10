"""Throw-away folders of servers that start beside one another."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from headwater.storage.embedded.folder import LOCK_NAME, ServerFolder, sweep


@pytest.mark.parametrize("goes_on", [True, False], ids=["while it is swept", "after it was swept"])
def test_a_folder_that_another_start_takes_for_a_left_one_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lock, others, swept = fcntl.flock, list[int](), list[Path]()

    def lock_late(descriptor: int, how: int) -> None:
        if not swept:
            swept.extend(tmp_path.iterdir())
            if goes_on:
                others.append(os.open(swept[0] / LOCK_NAME, os.O_RDWR))
                lock(others[0], how)
            else:
                sweep("redis")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    folder = ServerFolder(None, "redis")
    try:
        assert folder.path != swept[0]
        assert list(tmp_path.iterdir()) == [folder.path]
        sweep("redis")
        assert folder.path.exists()
    finally:
        folder.remove()
        for other in others:
            os.close(other)
