"""What a local cluster leaves when it ends."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from headwater.cluster.launcher import remove


def test_a_folder_goes_also_when_what_was_killed_still_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rmtree, late = tmp_path / "ray", shutil.rmtree, ["gcs", "log"]

    def remove_most(path: Path, **options: Any) -> None:
        rmtree(path, **options)
        if late:
            path.mkdir()
            (path / late.pop()).touch()

    monkeypatch.setattr(shutil, "rmtree", remove_most)
    folder.mkdir()
    remove(folder)
    assert not folder.exists()
