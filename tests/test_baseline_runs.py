"""Baselines through the trainer: heads of classes, runs that train nothing, what is refused elsewhere."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import config_file, experiment
from modaltune_jax.config import unpack
from modaltune_jax.convert import to_public
from modaltune_jax.monitor import read_metrics
from modaltune_jax.types import InputError
from modaltune_jax.zero_shot_embed import titan_of
from tests import tiny


def run(folder: Path, name: str, *, is_training: bool = True, **changes):
    """The table of one run, and its folder."""
    config = config_file.load(f"baselines.py:{name},demo")
    tiny.shrink_baseline(config)
    config.data.directory = str(folder / "records")
    config.data.simulation.update(tiny.SIMULATION)
    config.pipeline.num_buckets = 1
    config.text.encoder = "no such encoder"
    if config.optim.epochs:
        config.optim.update({"epochs": 2, "warmup_epochs": 1})
    config.update(changes)
    table = experiment.run(unpack(config), folder / name, is_training=is_training)
    return table, folder / name / "full/seed0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="module")
def probed(folder):
    return run(folder, "tile_mean,probe")


def test_what_trains_nothing_is_validated_once_and_probed(probed):
    table, folder = probed
    (line,) = read_metrics(folder / "metrics.jsonl")
    assert line["step"] == 0
    assert {"val/subtype", "val/survival", "val/site"} <= line.keys()
    assert set(table["method"]) == {"probe"}
    assert table["value"].notna().any()
    embeddings = np.load(folder / "embeddings.npz")["embeddings"]
    assert embeddings.shape[1:] == (1, 12)


def test_what_trains_nothing_can_be_evaluated_again(probed, folder):
    table, _ = probed
    again, _ = run(folder, "tile_mean,probe", is_training=False)
    pd.testing.assert_frame_equal(again, table)


def test_a_frozen_slide_encoder_is_probed_with_the_weights_it_began_with(folder):
    table, path = run(folder, "slide_encoder,probe")
    again, _ = run(folder, "slide_encoder,probe", is_training=False)
    pd.testing.assert_frame_equal(again, table)
    assert not read_metrics(path / "metrics.jsonl")[0].keys() & {"train/loss"}


def test_a_class_head_is_trained_scored_and_written(folder):
    table, path = run(folder, "mean_pool,subtype")
    lines = read_metrics(path / "metrics.jsonl")
    losses = [line["train/loss_cross_entropy"] for line in lines if "train/loss" in line]
    assert np.isfinite(losses).all()
    assert len(set(losses)) > 1
    assert "val/subtype:classes" in lines[-1]
    assert lines[-1]["val/score"] == lines[-1]["val/subtype:classes"]
    assert set(table["method"]) == {"probe", "classes"}
    said = pd.read_csv(path / "predictions.csv", keep_default_na=False, na_values={"p_ductal": [""]})
    breast = said[said["site"] == "sim_breast"]
    assert set(breast["class"]) <= {"ductal", "lobular"}
    rows = pd.to_numeric(breast["p_ductal"]) + pd.to_numeric(breast["p_lobular"])
    np.testing.assert_allclose(rows, 1.0, rtol=1e-6)
    assert said.loc[said["site"] != "sim_breast", "p_ductal"].isna().all()


def test_a_baseline_has_no_adapter_and_no_public_form(folder, probed):
    with pytest.raises(InputError, match="a baseline has no adapter"):
        run(folder, "mean_pool,cox", adapter_weights={"path": "adapter.safetensors"})
    with pytest.raises(InputError, match="the baseline tile_mean, which has no public form"):
        to_public._of_run(probed[1])
    with pytest.raises(InputError, match="baseline without one"):
        titan_of(unpack(config_file.load("baselines.py:abmil,subtype")))
