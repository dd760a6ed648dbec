"""A run: what trains and what stays, shapes and compilations, resume. Devices: test_mesh.py."""

import dataclasses
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from modaltune_jax import partitioning
from modaltune_jax.checkpoints import Checkpoints
from modaltune_jax.inputs.pipeline import train_batches
from modaltune_jax.monitor import read_metrics
from modaltune_jax.signals import Terminated
from modaltune_jax.train import build, predict, restore_best, train
from modaltune_jax.types import InputError
from tests import tiny

BOTH = ("slides", "expression")
FREEZE = (("^encoder/", "freeze"), (".*", "train"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def finished(folder):
    """A whole run of two epochs, nothing interrupted."""
    config, records, targets = tiny.experiment(folder)
    run, state = build(config, 0, BOTH, records, targets)
    before = jax.tree.map(np.asarray, run.frozen)
    last = train(run, state, folder / "finished")
    return run, last, before


def fresh(finished):
    """The compiled run and a first state of its own, which steps may consume."""
    _, state = build(finished[0].config, 0, BOTH, finished[0].records, finished[0].targets)
    return finished[0], state


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def test_frozen_weights_stay_bit_identical_and_have_no_state(finished):
    run, last, before = finished
    assert same(before, run.frozen)
    frozen = set(traverse_util.flatten_dict(run.frozen))
    assert frozen
    assert all(path[0] == "encoder" for path in frozen)
    moments = last.opt_state[0]
    for tree in (last.trainable, moments.mu, moments.nu):
        assert not frozen & set(traverse_util.flatten_dict(tree))


def test_every_trainable_leaf_moves(finished):
    run, state = fresh(finished)
    before = jax.tree.map(np.array, state.trainable)
    batches = iter(run.batches)
    for _ in range(2):
        state, _ = run.train_step(state, run.frozen, partitioning.shard_batch(next(batches), run.mesh))
    still = [
        path
        for path, value in traverse_util.flatten_dict(state.trainable).items()
        if np.array_equal(value, traverse_util.flatten_dict(before)[path])
    ]
    # Zero and idle: weight decay of zero is zero, and their gradient is exactly zero (see `layers`).
    idle = ("in_proj_bias", "over_pathways", "compression")
    assert all(any(word in map(str, path) for word in idle) for path in still), still


def test_compilations_equal_buckets(finished):
    """After two epochs, each with a validation."""
    run, _, _ = finished
    shapes = run.batches.plan.shapes
    assert len(shapes) == 2
    assert run.train_step._cache_size() == len(shapes)
    assert run.predict_step._cache_size() == len(shapes)


def without_dropout(config):
    encoder = dataclasses.replace(config.model.encoder, dropout=0.0, drop_path=0.0)
    pathways = dataclasses.replace(config.model.pathways, dropout=0.0)
    adapter = dataclasses.replace(config.model.adapter, drop_path=0.0)
    model = dataclasses.replace(config.model, encoder=encoder, pathways=pathways, adapter=adapter)
    return dataclasses.replace(config, model=model)


def test_filler_cases_change_nothing(folder):
    """One case alone, and the same beside seven that only complete the batch: same loss, same update."""
    config, records, targets = tiny.experiment(folder)
    run, state = build(without_dropout(config), 0, BOTH, records, targets)
    results = []
    for size in (1, 8):
        pipeline = dataclasses.replace(run.pipeline, batch_size=size)
        batches = train_batches(
            records, records.rows("train")[:1], targets.values, targets.transforms, pipeline, seed=0
        )
        batch = partitioning.shard_batch(next(iter(batches)), run.mesh)
        assert batch.weight.shape == (size,)
        assert float(batch.weight.sum()) == 1.0
        copy = jax.tree.map(lambda x: x.copy(), state)
        results.append(run.train_step(copy, run.frozen, batch))
    (alone, alone_metrics), (beside, beside_metrics) = results
    np.testing.assert_allclose(beside_metrics["loss"], alone_metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(beside_metrics["grad_norm"], alone_metrics["grad_norm"], rtol=1e-4)
    first, second = (jax.tree.leaves(result.opt_state[0].mu) for result in (alone, beside))
    scale = max(float(np.abs(leaf).max()) for leaf in first)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale)


class KilledError(Exception):
    pass


def killed():
    raise KilledError


def terminated():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "error", "saved"),
    [
        pytest.param(killed, KilledError, 0, id="kill, from the last checkpoint"),
        pytest.param(terminated, Terminated, 2, id="SIGTERM, from the step it came in"),
    ],
)
def test_resume_equals_uninterrupted(folder, finished, stop, error, saved):
    """Stopped in the middle of the second epoch, started again from nothing but the folder."""
    _, last, _ = finished
    workdir = folder / f"resumed_{saved}"
    run, state = fresh(finished)
    steps = 0
    inner = run.train_step

    def dying_step(*args):
        nonlocal steps
        steps += 1
        if steps == run.steps_per_epoch + 2:
            stop()
        return inner(*args)

    with pytest.raises(error):
        train(dataclasses.replace(run, train_step=dying_step), state, workdir)
    steps_saved = [int(path.name) for path in (workdir / "checkpoints/latest").iterdir()]
    assert max(steps_saved) == run.steps_per_epoch + saved
    again, first = build(run.config, 0, BOTH, run.records, run.targets)
    resumed = train(again, first, workdir)
    assert same(resumed, last)
    # A restored state has the shardings and types of the first, and compiles nothing of its own.
    assert again.train_step._cache_size() <= len(again.batches.plan.shapes)
    assert again.predict_step._cache_size() == len(again.batches.plan.shapes)
    rows, expected = (read_metrics(path / "metrics.jsonl") for path in (workdir, folder / "finished"))
    for row in (*rows, *expected):
        row.pop("train/cases_per_second", None)
    assert rows == expected


def test_a_stop_does_not_wait_for_a_validation(folder, finished, monkeypatch):
    """Its step is saved before it begins, and it is done again: the best is the same."""
    run, last, _ = finished
    shutil.copytree(folder / "finished", folder / "validated")
    best = restore_best(run, last, folder / "finished")[1]["step"]
    with monkeypatch.context() as patched:
        patched.setattr("modaltune_jax.train.predict", lambda *args: terminated())
        with pytest.raises(Terminated):
            train(run, last, folder / "validated")
    rows = read_metrics(folder / "validated/metrics.jsonl")
    assert [row["step"] for row in rows if "val/score" in row] == [run.steps_per_epoch]
    train(run, last, folder / "validated")
    assert read_metrics(folder / "validated/metrics.jsonl") == read_metrics(folder / "finished/metrics.jsonl")
    assert restore_best(run, last, folder / "validated")[1]["step"] == best


def test_checkpoints_between_validations(folder, finished):
    """As often as the clock says: here after every step, of which the last two are kept."""
    run, state = fresh(finished)
    often = dataclasses.replace(run.config.checkpoint, every_minutes=1e-9)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, checkpoint=often))
    inner = run.train_step

    def dying_step(state, *args):
        if int(state.step) == 3:
            raise KilledError
        return inner(state, *args)

    with pytest.raises(KilledError):
        train(dataclasses.replace(run, train_step=dying_step), state, folder / "often")
    latest = folder / "often/checkpoints/latest"
    assert sorted(int(path.name) for path in latest.iterdir()) == [2, 3]
    assert not (folder / "often/checkpoints/best").exists()


def test_best_checkpoint_restores_and_holds_no_encoder(folder, finished):
    run, last, _ = finished
    best, meta = restore_best(run, last, folder / "finished")
    assert set(best) == {"adapter", "fusion", "modal_tokens"}
    assert meta["encoder"] == run.encoder_hash
    embeddings = predict(run, best, ("val",))["embedding"]
    val = run.records.rows("val")
    assert np.isfinite(embeddings[val]).all()
    assert np.isnan(np.delete(embeddings, val, axis=0)).all()


def test_another_encoder_is_refused(folder, finished):
    run, last, _ = finished
    other = dataclasses.replace(run, encoder_hash="0" * 64)
    with pytest.raises(InputError, match="another encoder"):
        restore_best(other, last, folder / "finished")


def test_other_batches_are_refused(folder, finished):
    """As on so many devices that each batch must be larger: a step means something else then."""
    _, last, _ = finished
    config, records, targets = tiny.experiment(folder)
    pipeline = dataclasses.replace(config.pipeline, batch_size=24)
    other, _ = build(dataclasses.replace(config, pipeline=pipeline), 0, BOTH, records, targets)
    with pytest.raises(InputError, match=r"6 batches an epoch of .*\[8, .* devices: go on with as many"):
        train(other, last, folder / "finished")


def test_another_version_is_refused(folder, finished):
    """It has fitted other things on train."""
    run, last, _ = finished
    shutil.copytree(folder / "finished", folder / "older")
    (path,) = (folder / "older/checkpoints/best").glob("*/meta/metadata")
    path.write_text(path.read_text().replace("num_bins", "bins"))
    with pytest.raises(InputError, match=r"older: .* are of another version of modaltune_jax; train again"):
        restore_best(run, last, folder / "older")


def test_another_model_is_refused(folder, finished):
    run, last, _ = finished
    smaller = {
        "trainable": {"fusion": last.trainable["fusion"]},
        "projector": run.targets.projector.to_dict(),
    }
    with (
        Checkpoints(folder / "finished" / "checkpoints", run.config.checkpoint) as checkpoints,
        pytest.raises(InputError, match="another model"),
    ):
        checkpoints.restore("best", smaller)


def test_feature_width_must_match_the_encoder(folder):
    config, records, targets = tiny.experiment(folder)
    encoder = dataclasses.replace(config.model.encoder, in_dim=1536)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder))
    with pytest.raises(InputError, match=r"12 wide.*1536"):
        build(config, 0, BOTH, records, targets)


def test_missing_encoder_weights_are_an_error(folder):
    config, records, targets = tiny.experiment(folder)
    weights = dataclasses.replace(config.encoder_weights, init="file", path="nowhere.safetensors")
    with pytest.raises(InputError, match=r"nowhere\.safetensors"):
        build(dataclasses.replace(config, encoder_weights=weights), 0, BOTH, records, targets)


def test_a_loss_that_is_not_finite_stops_the_run(folder, finished):
    run, state = fresh(finished)
    trainable = jax.tree.map(lambda x: x * np.nan, state.trainable)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        train(run, state._replace(trainable=trainable), folder / "nan")
