"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the README's first program in it."""
    found = re.search(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "shop.py").write_text(found[1])
    return tmp_path


def test_the_first_program_appends_and_its_subscription_delivers(shop: Path, empty_database_url: str) -> None:
    # A machine that pauses is no owner that is gone: what it had would be delivered again.
    environment = {**os.environ, "HEADWATER_DATABASE_URL": empty_database_url, "HEADWATER_LEASE": "30"}
    appended = subprocess.run(
        [sys.executable, "shop.py"], cwd=shop, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert appended.stdout.splitlines() == [f"order-{n} stands at position {n}" for n in (1, 2, 3)]
    with subprocess.Popen(
        [sys.executable, "-m", "headwater", "run", "shop:app"],
        cwd=shop,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            lines = [running.stdout.readline().strip() for _ in range(4)]
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(timeout=30)
    assert lines[0].startswith("running on ")
    assert lines[1:] == [f"order-{n} at position {n}: {10 * n} paid" for n in (1, 2, 3)]


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
