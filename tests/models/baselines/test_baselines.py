"""What every baseline keeps: padding, batches, absent modalities, places on the mesh; and that it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh

from configs import baselines
from modaltune_jax import config_file, partitioning
from modaltune_jax.config import unpack
from modaltune_jax.losses.text_similarity import softmax_cross_entropy
from modaltune_jax.models.baselines import BASELINES
from modaltune_jax.models.baselines.baseline import Baseline, BaselineModelConfig
from modaltune_jax.models.heads import HeadsConfig
from modaltune_jax.types import MODALITIES
from tests import tiny
from tests.baseline_batches import INPUTS, case, draw

LENGTHS, BUCKET = (5, 1, 0), 12


@functools.cache
def config(name: str) -> BaselineModelConfig:
    as_written = config_file.load(f"baselines.py:{name},subtype")
    tiny.shrink_baseline(as_written)
    model = unpack(as_written).model
    assert isinstance(model, BaselineModelConfig)
    return model


@functools.cache
def model(name: str) -> Baseline:
    return Baseline(config(name), INPUTS, HeadsConfig(num_classes=2), rngs=nnx.Rngs(0))


@functools.cache
def compiled(name: str):
    graphdef, state = nnx.split(model(name))
    run = jax.jit(lambda state, batch: nnx.merge(graphdef, state)(batch).embedding[:, 0])
    return functools.partial(run, state)


def test_every_baseline_has_a_config():
    assert set(baselines.MODELS) == set(BASELINES) == set(tiny.BASELINE_SIZES)
    for name, (modalities, _) in baselines.MODELS.items():
        assert BASELINES[name][1].modalities == modalities


@pytest.mark.parametrize("name", BASELINES)
def test_padding_and_other_cases_change_nothing(name):
    batch = draw(LENGTHS, bucket=BUCKET)
    together = np.asarray(compiled(name)(batch))
    assert together.shape == (len(LENGTHS), model(name).baseline.out_dim)
    assert np.isfinite(together).all()
    for i in range(len(LENGTHS)):
        alone = np.asarray(compiled(name)(case(batch, i)))
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_what_padding_holds_is_not_read(name):
    batch = draw(LENGTHS, bucket=BUCKET)
    beyond = np.arange(BUCKET) >= np.array(LENGTHS)[:, None]
    noisy = batch._replace(
        features=np.where(beyond[..., None], 7.0, batch.features).astype(np.float32),
        cells=np.where(beyond[..., None], 3, batch.cells).astype(np.int32),
    )
    np.testing.assert_allclose(compiled(name)(noisy), compiled(name)(batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_it_reads_its_modalities_and_no_others(name):
    batch = draw(LENGTHS, bucket=BUCKET)
    before = np.asarray(compiled(name)(batch))
    without = {
        "slides": batch._replace(features=0 * batch.features, length=0 * batch.length),
        "expression": batch._replace(expression=0 * batch.expression),
        "clinical": batch._replace(clinical=0 * batch.clinical),
    }
    for i, modality in enumerate(MODALITIES):
        present = batch.present.copy()
        present[:, i] = False
        after = np.asarray(compiled(name)(without[modality]._replace(present=present)))
        assert np.isfinite(after).all()
        is_read = modality in BASELINES[name][1].modalities
        assert (np.abs(after - before).max() > 1e-6) == is_read, modality


@pytest.mark.parametrize("name", [name for name in BASELINES if len(BASELINES[name][1].modalities) == 1])
def test_a_case_without_its_modality_is_zeros(name):
    absent = draw((0, 0, 0), bucket=BUCKET, absent=MODALITIES)
    np.testing.assert_array_equal(compiled(name)(absent), 0.0)


@pytest.mark.parametrize("name", BASELINES)
def test_every_parameter_has_a_place_on_the_mesh(name):
    mesh = AbstractMesh((2, 4, 1), partitioning.AXES)
    for path, leaf in nnx.to_flat_state(nnx.state(model(name))):
        partitioning.param_spec("/".join(map(str, path)), leaf.shape, mesh)


@pytest.mark.parametrize("name", BASELINES)
def test_sixteen_cases_are_learnt_by_heart(name):
    """With labels that mean nothing, and dropout off."""
    batch = jax.tree.map(jnp.asarray, draw(tuple(np.arange(16) % 5 + 2), bucket=9, seed=3))
    label = jnp.asarray(np.random.default_rng(0).permutation(16) % 2)
    graphdef, state = nnx.split(model(name))
    is_trained = bool(jax.tree.leaves(nnx.state(model(name).baseline, nnx.Param)))
    optimizer = optax.adam(1e-2 if is_trained else 0.3)

    def loss(state):
        logits = nnx.merge(graphdef, state)(batch).predictions.classes
        return softmax_cross_entropy(logits, label).mean(), jnp.mean(jnp.argmax(logits, axis=1) == label)

    def step(carry, _):
        state, opt_state = carry
        grads, share = jax.grad(loss, has_aux=True)(state)
        updates, opt_state = optimizer.update(grads, opt_state, state)
        return (optax.apply_updates(state, updates), opt_state), share

    run = jax.jit(lambda state: jax.lax.scan(step, (state, optimizer.init(state)), length=150)[1])
    assert float(run(state)[-1]) == 1.0
