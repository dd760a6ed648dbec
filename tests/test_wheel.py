"""What a wheel carries: the whole package, and the folders that users edit, where the package finds them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modaltune_jax import locations

ROOT = Path(__file__).parents[1]
PARTS = (
    "modaltune_jax",
    "configs",
    "data",
    "pyproject.toml",
    "setup.py",
    "requirements.txt",
    "README.md",
    "LICENSE",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel unpacks to; nothing is downloaded."""
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / part, source / part)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python that knows the wheel but not the repository."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=installed.parent, env=environment, capture_output=True, text=True, timeout=120
    )


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


def test_everything_is_in_it(installed):
    package = installed / "modaltune_jax"
    shipped = {f"_shipped/configs/{name}" for name in files(ROOT / "configs", "*.py")}
    assert files(package, "*.py") == files(ROOT / "modaltune_jax", "*.py") | shipped
    assert files(package / "_shipped/data", "*.*") == files(ROOT / "data", "*.*")
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"modaltune_jax"}


def test_cohorts_are_found(installed):
    code = (
        "from modaltune_jax.inputs.cohort import find_spec; from modaltune_jax.locations import shipped;"
        "print(find_spec('brca').organ, shipped('data'))"
    )
    done = run(installed, "-c", code)
    assert done.stdout.split() == ["breast", str(installed / "modaltune_jax/_shipped/data")], done.stderr


def test_configs_are_found_and_import_each_other(installed):
    """As far as the config can take it: a key that is not there is the first thing wrong."""
    done = run(installed, "-m", "modaltune_jax.main", "--config=pancancer.py:demo", "--config.optim.epohs=3")
    assert done.returncode == 2, done.stderr
    assert "did you mean config.optim.epochs" in done.stderr


def test_a_foreign_folder_beside_the_package_is_not_taken(tmp_path, monkeypatch):
    """site-packages may hold somebody's "data"; only a checkout has a pyproject.toml."""
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(locations, "_PACKAGE", tmp_path / "modaltune_jax")
    assert locations.shipped("data") == tmp_path / "modaltune_jax/_shipped/data"
    (tmp_path / "pyproject.toml").touch()
    assert locations.shipped("data") == tmp_path / "data"
