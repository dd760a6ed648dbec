"""What is noted about how results came about."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from modaltune_jax.config import describe, unpack
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.inputs.splits import Splits
from modaltune_jax.run_manifest import NAME, data_sha256, recorded
from tests import tiny


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    config = unpack(tiny.config_dict(tmp_path_factory.mktemp("tiny"), "mean_pool"))
    return describe(config), prepare(config.data)


def read(folder: Path) -> dict:
    return json.loads((folder / NAME).read_text())


def test_time_is_summed_over_all_times_that_a_run_goes_on(tmp_path, given):
    config, records = given
    seen = []

    def stop():
        with recorded(tmp_path / "run", config, records, [3]):
            seen.append(read(tmp_path / "run"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    (first,) = seen
    assert (first["status"], first["ended"], first["wall_seconds"]) == ("running", None, 0.0)
    stopped = read(tmp_path / "run")
    assert stopped["status"] == "stopped"
    (tmp_path / "run" / NAME).write_text(json.dumps(stopped | {"wall_seconds": 100.0}))
    with recorded(tmp_path / "run", config, records, [3]):
        pass
    finished = read(tmp_path / "run")
    assert finished["status"] == "finished"
    assert 100.0 <= finished["wall_seconds"] < 160.0
    assert finished["started"] == first["started"] <= finished["ended"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [NAME]


def test_it_says_what_gave_the_results(tmp_path, given):
    config, records = given
    with recorded(tmp_path, config, records, [0, 1]):
        pass
    noted = read(tmp_path)
    assert noted["seeds"] == [0, 1]
    assert {"jax", "flax", "python", "modaltune_jax", "scikit-survival"} <= set(noted["versions"])
    assert noted["hardware"]["devices"].endswith("x cpu")
    splits = dict(zip(records.table["case_id"], records.table["split"], strict=True))
    assert noted["data"]["splits_sha256"] == Splits(splits, "any recipe").sha256
    assert noted["data"]["num_by_split"] == records.table["split"].value_counts().to_dict()
    other = {**config, "name": "another"}
    with recorded(tmp_path / "other", other, records, [0]):
        pass
    assert read(tmp_path / "other")["config_sha256"] != noted["config_sha256"]
    assert read(tmp_path / "other")["data"] == noted["data"]


def test_the_hash_of_data_depends_on_labels_and_files_and_not_on_the_place(tmp_path, given):
    _, records = given
    before = data_sha256(records)
    records.directory.rename(tmp_path / "moved")
    try:
        moved = type(records)(tmp_path / "moved")
        assert data_sha256(moved) == before
        index = pd.read_parquet(moved.directory / "index.parquet")
        kept = (moved.directory / "index.parquet").read_bytes()
        index.assign(age=index["age"] + 1).to_parquet(moved.directory / "index.parquet", index=False)
        assert data_sha256(moved) != before
        (moved.directory / "index.parquet").write_bytes(kept)
        assert data_sha256(moved) == before
    finally:
        (tmp_path / "moved").rename(records.directory)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_text("{"), id="damaged before"),
        pytest.param(lambda path: path.write_text('{"started": 1}'), id="of another version"),
        pytest.param(lambda path: path.mkdir(), id="cannot be read or written"),
    ],
)
def test_no_run_fails_by_its_manifest(tmp_path, given, damage, caplog):
    damage(tmp_path / NAME)
    with caplog.at_level(logging.WARNING), recorded(tmp_path, *given, [0]):
        reached = True
    assert reached
    assert NAME in caplog.text


def test_only_the_first_process_writes(tmp_path, given):
    with recorded(tmp_path, *given, [0], is_writing=False):
        pass
    assert not list(tmp_path.iterdir())
