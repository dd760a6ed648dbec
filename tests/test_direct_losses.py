"""Runs on losses of labels: heads train, the memory fills and survives a kill, predictions are written."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from flax import traverse_util

from configs import common
from modaltune_jax import experiment
from modaltune_jax.monitor import read_metrics
from modaltune_jax.train import build, predict, restore_best, train
from modaltune_jax.types import InputError
from tests import tiny

BOTH = ("slides", "expression")
TERMS = ("distillation", "cox", "discrete_hazard", "ranking", "text_similarity")


def loss(**changes):
    config = common.loss(**dict.fromkeys(TERMS, 0.5))
    config.uncertainty = True
    config.cox.memory = 6
    config.discrete_hazard.num_bins = 2
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("direct")


@pytest.fixture(scope="module")
def finished(folder):
    config, records, targets = tiny.experiment(folder, "mean_pool", loss())
    run, state = build(config, 0, BOTH, records, targets)
    before = jax.tree.map(np.array, state.trainable)
    return run, before, train(run, state, folder / "finished")


def same(a, b) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def test_every_head_trains(finished):
    _, before, last = finished
    heads = traverse_util.flatten_dict(last.trainable["heads"])
    assert {path[0] for path in heads} == {"risk", "hazard", "text", "temperature", "log_variance"}
    for path, value in heads.items():
        assert not np.array_equal(value, traverse_util.flatten_dict(before["heads"])[path]), path


def test_the_memory_holds_the_last_cases(finished):
    run, _, last = finished
    assert last.memory.where.all()
    times = run.records.table.loc[run.records.rows("train"), "time"].to_numpy(np.float32)
    assert np.isin(np.asarray(last.memory.time), times).all()


def test_every_term_is_logged(finished, folder):
    rows = [row for row in read_metrics(folder / "finished/metrics.jsonl") if "train/loss" in row]
    for term in TERMS:
        values = [row[f"train/loss_{term}"] for row in rows]
        assert np.isfinite(values).all()
        assert len(set(values)) > 1, term


def test_heads_are_scored_beside_the_probes(finished):
    run, _, last = finished
    val = read_metrics(Path(run.records.directory).parent / "finished/metrics.jsonl")[-1]
    assert {
        "val/subtype",
        "val/survival",
        "val/survival:risk",
        "val/survival:hazard",
        "val/subtype:similarity",
    } <= set(val)
    said = predict(run, last.trainable, ("val",))
    assert {name: values.shape[1:] for name, values in said.items()} == {
        "embedding": (3, 16),
        "risk": (),
        "hazard": (2,),
        "similarity": (len(run.targets.supervision.labels.class_names),),
    }


def test_compilations_equal_buckets(finished):
    """Neither heads nor memory change their type or place from one step to the next."""
    run, _, _ = finished
    assert run.train_step._cache_size() == len(run.batches.plan.shapes)


class KilledError(Exception):
    pass


def test_resume_equals_uninterrupted(finished, folder):
    """The memory too: what it holds decides the losses that follow."""
    run, _, last = finished
    _, state = build(run.config, 0, BOTH, run.records, run.targets)
    inner, steps = run.train_step, 0

    def dying_step(*args):
        nonlocal steps
        steps += 1
        if steps == run.steps_per_epoch + 2:
            raise KilledError
        return inner(*args)

    with pytest.raises(KilledError):
        train(dataclasses.replace(run, train_step=dying_step), state, folder / "resumed")
    run, state = build(run.config, 0, BOTH, run.records, run.targets)
    again = train(run, state, folder / "resumed")
    same(again.trainable, last.trainable)
    same(again.memory, last.memory)


def test_a_memory_of_the_whole_cohort_is_refused(folder):
    config, records, targets = tiny.experiment(folder, "mean_pool", loss())
    cox = dataclasses.replace(config.loss.cox, memory=10_000)
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, cox=cox))
    with pytest.raises(InputError, match="10000 holds every one of the"):
        build(config, 0, BOTH, records, targets)


def test_cases_of_unknown_survival_have_no_place_in_the_memory(folder):
    config, records, targets = tiny.experiment(folder, "mean_pool", loss())
    table = records.table.copy()
    table.loc[records.rows("train")[6:], ["time", "event"]] = (np.nan, -1)
    records.table = table
    with pytest.raises(
        InputError, match="memory=6 holds every one of the 6 training cases of known survival"
    ):
        build(config, 0, BOTH, records, targets)


def test_another_label_space_is_not_resumed(finished, folder):
    config, records, targets = tiny.experiment(folder, "mean_pool", loss())
    space = dataclasses.replace(targets.supervision.labels, horizons={"sim_lung": 1.0})
    supervision = dataclasses.replace(targets.supervision, labels=space)
    run, state = build(config, 0, BOTH, records, dataclasses.replace(targets, supervision=supervision))
    with pytest.raises(InputError, match="was trained with another targets"):
        restore_best(run, state, folder / "finished")


def test_an_experiment_writes_predictions(folder, capsys):
    config, _, _ = tiny.experiment(folder, "mean_pool", loss(), epochs=1, warmup_epochs=0)
    best = dataclasses.replace(config.checkpoint, best=("survival:risk", "subtype:similarity"))
    config = dataclasses.replace(config, checkpoint=best)
    table = experiment.run(config, folder / "run", is_training=True)
    assert set(table["method"]) == {"probe", "risk", "hazard", "similarity"}
    printed = capsys.readouterr().out
    for column in ("full [risk]", "full [hazard]", "full [similarity]"):
        assert column in printed
    predictions = pd.read_csv(folder / "run/full/seed0/predictions.csv")
    assert {"case_id", "site", "split", "risk", "survival_12m", "median_survival_months", "class"} <= set(
        predictions
    )
    assert set(predictions["split"]) == {"train", "val", "test"}
    with np.load(folder / "run/full/seed0/embeddings.npz") as saved:
        assert {"embeddings", "risk", "hazard", "similarity"} <= set(saved)
    assert (folder / "run/results.png").stat().st_size > 0
