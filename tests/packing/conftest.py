"""A folder of slides to pack, and where the records go."""

from pathlib import Path

import pytest

from modaltune_jax.inputs.storage import tfds_writer
from tests.packing.packable import write_slides


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Slides in `features`, from which the paths in the documents begin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds_writer, "SHARD_BYTES", 1000)
    write_slides(Path("features"))
    return Path("features")


@pytest.fixture
def out():
    return Path("out")
