"""How the folders become one installable package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINKED = ("cluster", "storage", "subscriptions")
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.mark.parametrize("name", LINKED)
def test_the_import_package_links_to_the_real_folder(name: str) -> None:
    link = ROOT / "src" / "headwater" / name
    assert link.is_symlink(), "a checkout without symbolic links cannot be installed: git config core.symlinks true"
    assert link.readlink() == Path("../..") / name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel as it would be published, built from a copy without anything that git ignores."""
    copy, built = tmp_path_factory.mktemp("copy") / "headwater", tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    subprocess.run([sys.executable, "-c", BUILD, built], cwd=copy, check=True, capture_output=True)
    return zipfile.Path(next(built.glob("*.whl")))


def test_every_module_and_every_statement_ships_in_the_wheel(wheel: zipfile.Path) -> None:
    expected = {
        f"headwater/{path.relative_to(ROOT)}"
        for folder in LINKED
        for pattern in ("*.py", "*.sql")
        for path in (ROOT / folder).rglob(pattern)
    }
    shipped = set(wheel.root.namelist())
    assert expected
    assert expected - shipped == set()
    assert {"headwater/__init__.py", "headwater/py.typed"} <= shipped


def test_nothing_but_the_package_lands_in_site_packages(wheel: zipfile.Path) -> None:
    tops = {name.partition("/")[0] for name in wheel.root.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"headwater"}


def test_the_license_travels_with_the_wheel(wheel: zipfile.Path) -> None:
    texts = [name for name in wheel.root.namelist() if name.endswith("LICENSE")]
    assert len(texts) == 1
    assert "Headwater maintainers" in wheel.joinpath(texts[0]).read_text()
