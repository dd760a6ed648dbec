"""Several batches in one update: the same as one large batch, whatever their sizes, and resumed exactly."""

import dataclasses
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from modaltune_jax import partitioning
from modaltune_jax.accumulation import accumulate
from modaltune_jax.signals import Terminated
from modaltune_jax.train import build, train
from tests import tiny

BOTH = ("slides", "expression")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Distillation, without dropout: batches of the same cases give the same gradients."""
    folder = tmp_path_factory.mktemp("tiny")
    loss = common.loss(distillation=1.0)
    config, records, targets = tiny.experiment(folder, "mean_pool", loss, max_grad_norm=1.0)
    pathways = dataclasses.replace(config.model.pathways, dropout=0.0)
    adapter = dataclasses.replace(config.model.adapter, drop_path=0.0)
    model = dataclasses.replace(config.model, pathways=pathways, adapter=adapter)
    return folder, dataclasses.replace(config, model=model), records, targets


def built(experiment, accumulate_steps: int):
    _, config, records, targets = experiment
    optim = dataclasses.replace(config.optim, accumulate_steps=accumulate_steps)
    return build(dataclasses.replace(config, optim=optim), 0, BOTH, records, targets)


@pytest.mark.parametrize(
    "num_cases",
    [
        pytest.param((4, 4, 4), id="full batches"),
        pytest.param((4, 1, 3), id="of different sizes"),
        pytest.param((4, 0, 2), id="one of filler alone"),
    ],
)
def test_update_is_of_the_mean_over_all_cases(num_cases):
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(3, 5)).astype(np.float32)
    adamw = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-3))
    optimizer = accumulate(adamw, 3)
    weights = {"kernel": jnp.ones(5)}
    state = optimizer.init(weights)
    for grad, cases in zip(grads, num_cases, strict=True):
        updates, state = optimizer.update(
            {"kernel": jnp.asarray(grad)}, state, weights, num_cases=jnp.float32(cases)
        )
    mean = np.average(grads, axis=0, weights=num_cases).astype(np.float32)
    expected, moments = adamw.update({"kernel": jnp.asarray(mean)}, adamw.init(weights), weights)
    np.testing.assert_allclose(updates["kernel"], expected["kernel"], rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), state.inner, moments)
    assert (int(state.num_batches), float(state.num_cases)) == (0, 0.0)
    assert not np.any(state.total["kernel"])


def test_nothing_moves_before_the_last_batch():
    optimizer = accumulate(optax.adamw(1e-3), 2)
    weights = {"kernel": jnp.ones(3)}
    start = optimizer.init(weights)
    updates, state = optimizer.update({"kernel": jnp.ones(3)}, start, weights, num_cases=jnp.float32(2))
    assert not np.any(updates["kernel"])
    jax.tree.map(np.testing.assert_array_equal, state.inner, start.inner)
    assert int(state.num_batches) == 1


@pytest.fixture(scope="module")
def accumulating(experiment):
    """Six batches an epoch, four an update: an update goes on across the edge of the epochs."""
    run, _ = built(experiment, 4)
    assert run.steps_per_epoch == 6
    return run


def test_four_batches_equal_one_of_all_their_cases(experiment, accumulating):
    batches = [jax.tree.map(np.copy, batch) for batch, _ in zip(accumulating.batches, range(4), strict=False)]
    whole = jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    assert whole.weight.sum() == 32
    at_once, state = built(experiment, 1)
    state, metrics = at_once.train_step(
        state, at_once.frozen, partitioning.shard_batch(whole, accumulating.mesh)
    )
    _, split = built(experiment, 4)
    losses = []
    for batch in batches:
        batch = partitioning.shard_batch(batch, accumulating.mesh)
        split, parts = accumulating.train_step(split, accumulating.frozen, batch)
        losses.append(float(parts["loss"]))
    assert np.mean(losses) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    one, two = (optax.tree.get(state.opt_state, "mu") for state in (state, split))
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(one))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(y, x, rtol=0, atol=1e-6 * scale), one, two)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, split.trainable, state.trainable)


def test_resume_in_the_middle_of_an_update(experiment, accumulating):
    folder = experiment[0]
    last = train(accumulating, built(experiment, 4)[1], folder / "whole")
    assert int(optax.tree.get(last.opt_state, "num_batches")) == 0

    def dying_step(state, *args):
        if int(state.step) == 6:
            signal.raise_signal(signal.SIGTERM)
        return accumulating.train_step(state, *args)

    with pytest.raises(Terminated, match="after step 7 of 12"):
        train(
            dataclasses.replace(accumulating, train_step=dying_step),
            built(experiment, 4)[1],
            folder / "stopped",
        )
    resumed = train(accumulating, built(experiment, 4)[1], folder / "stopped")
    jax.tree.map(np.testing.assert_array_equal, resumed, last)
