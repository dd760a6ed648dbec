"""The whole model against recorded numbers of the reference, and what must not change them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

from modaltune_jax.convert.modaltune import rules, to_params, to_tensors
from modaltune_jax.losses.distillation import kl_to_text
from modaltune_jax.models.adapter import AdapterConfig
from modaltune_jax.models.encoders.longnet import LongNetConfig
from modaltune_jax.models.encoders.mean_pool import MeanPoolConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune, ModelConfig
from modaltune_jax.models.pathways import PathwayConfig
from modaltune_jax.optim import merge_params, split_params
from modaltune_jax.types import TASKS, Batch
from tests.golden import MANIFEST, load, relative_error, weights

VARIANTS = [name for name in MANIFEST if name.startswith("modaltune_gigapath")]
LENGTHS = (3, 100, 203)
GROUPS = tuple(np.array(group) for group in MANIFEST["gene_encoder"]["groups"])
TABLE = rules([len(group) for group in GROUPS], num_mixers=3, num_stages=3)
FREEZE = (("^encoder/", "freeze"), (".*", "train"))

ENCODER = LongNetConfig(
    in_dim=24,
    width=32,
    depth=6,
    num_heads=16,
    ffn_dim=128,
    segment_lengths=(8, 16, 44, 80, 160),
    dilated_ratios=(1, 2, 4, 8, 16),
)


def model_config(variant: str) -> ModelConfig:
    options = MANIFEST[variant]["options"]
    clinical = ("clinical",) if options.get("clinical") else ()
    return ModelConfig(
        encoder=ENCODER,
        adapter=AdapterConfig(((0, 2), (2, 4), (4, 6)), 0.25, 4, 0.25, 2, 0.0),
        pathways=PathwayConfig(12, 3, 0.5, 0.5, 5, 0.0),
        modalities=("slides", "expression", *clinical),
        tasks=TASKS[:1] if options.get("multi_task") == 1 else TASKS,
        expression_agg=options.get("prompt_agg", "avg"),
        fusion=options.get("token_agg", "sum"),
        embedding_dim=16,
    )


def build(config: ModelConfig) -> ModalTune:
    return ModalTune(config, ModalInputs(GROUPS, 5), rngs=nnx.Rngs(0))


def golden_model(variant: str) -> tuple[ModalTune, dict]:
    golden, model = load(variant), build(model_config(variant))
    params = to_params(weights(golden), nnx.to_pure_dict(nnx.state(model)), TABLE)
    nnx.update(model, jax.tree.map(jnp.asarray, params))
    return model, golden


def batch_of(golden: dict, lengths: tuple[int, ...], bucket: int) -> Batch:
    """The recorded bags, padded to `bucket` with rows that must not matter."""
    num = len(lengths)
    features = np.full((num, bucket, 24), 7.0, np.float32)
    cells = np.full((num, bucket, 2), 3, np.int32)
    for row, length in enumerate(lengths):
        features[row, :length] = golden[f"x/{length}"][0]
        cells[row, :length] = golden[f"coords/{length}"][0] // 256
    clinical = [golden.get(f"clinical/{length}", np.zeros((1, 5), np.float32))[0] for length in lengths]
    batch = Batch(
        features=features,
        cells=cells,
        length=np.array(lengths, np.int32),
        expression=np.stack([golden[f"expression/{length}"] for length in lengths]),
        clinical=np.stack(clinical),
        present=np.ones((num, 3), bool),
        targets=np.zeros((num, 3, 16), np.float32),
        subtype=np.zeros(num, np.int32),
        site=np.zeros(num, np.int32),
        time=np.zeros(num, np.float32),
        event=np.zeros(num, np.int32),
        weight=np.ones(num, np.float32),
        index=np.arange(num, dtype=np.int32),
    )
    return jax.tree.map(jnp.asarray, batch)


def embed(model: ModalTune, batch: Batch) -> jax.Array:
    return jax.jit(lambda batch: model(batch).embedding)(batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_embeddings(variant):
    """All lengths in one padded batch: batching and padding are part of the parity."""
    model, golden = golden_model(variant)
    out = embed(model, batch_of(golden, LENGTHS, bucket=255))
    for row, length in enumerate(LENGTHS):
        assert relative_error(out[row], golden[f"out/{length}"]) < 1e-4, length


@pytest.mark.parametrize("variant", VARIANTS)
def test_public_names_round_trip(variant):
    model, golden = golden_model(variant)
    tensors = to_tensors(nnx.to_pure_dict(nnx.state(model)), TABLE)
    public = weights(golden)
    assert tensors.keys() == public.keys()
    for name, value in public.items():
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)


def test_recorded_adamw_trajectory():
    """Losses of three steps, gradients of the first, weights after the last; the encoder stays put."""
    variant = "modaltune_gigapath_avg_sum"
    model, golden = golden_model(variant)
    graphdef, state = nnx.split(model)
    trainable, frozen = split_params(nnx.to_pure_dict(state), FREEZE)
    training = MANIFEST[variant]["training"]
    optimizer = optax.adamw(training["lr"], weight_decay=training["weight_decay"])

    @jax.jit
    def step(trainable, opt_state, batch):
        def loss(trainable):
            embedding = nnx.merge(graphdef, merge_params(trainable, frozen))(batch).embedding
            return kl_to_text(embedding, batch.targets, None, temperature=1.0, scale=10.0).sum()

        value, grads = jax.value_and_grad(loss)(trainable)
        updates, opt_state = optimizer.update(grads, opt_state, trainable)
        return value, grads, optax.apply_updates(trainable, updates), opt_state

    opt_state, losses, first_grads = optimizer.init(trainable), [], None
    for length in training["bags"]:
        targets = golden[f"text_projected/{length}"][None, [0, 1, 3]]
        batch = batch_of(golden, (length,), bucket=255)._replace(targets=jnp.asarray(targets))
        value, grads, trainable, opt_state = step(trainable, opt_state, batch)
        losses.append(float(value))
        first_grads = grads if first_grads is None else first_grads

    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-4)
    zero = jax.tree.map(jnp.zeros_like, frozen)
    compare(to_tensors(merge_params(first_grads, zero), TABLE), weights(golden, "grad/"), 1e-4)
    compare(to_tensors(merge_params(trainable, frozen), TABLE), weights(golden, "after/"), 1e-4)
    untouched = traverse_util.flatten_dict(frozen)
    assert untouched
    assert all(path[0] == "encoder" for path in untouched)


def compare(actual: dict, expected: dict, tolerance: float) -> None:
    scale = max(float(np.abs(value).max()) for value in expected.values())
    for name, value in expected.items():
        error = np.abs(actual[name] - value).max()
        assert error < tolerance * max(float(np.abs(value).max()), 1e-3 * scale), (name, error)


def test_every_recorded_trainable_is_trainable_here():
    golden = load("modaltune_gigapath_avg_sum")
    model = build(model_config("modaltune_gigapath_avg_sum"))
    _, frozen = split_params(nnx.to_pure_dict(nnx.state(model)), FREEZE)
    frozen_names = set(to_tensors({"encoder": frozen["encoder"]}, TABLE))
    assert frozen_names == {str(name) for name in golden["frozen"]}


@pytest.mark.parametrize(
    "encoder", [ENCODER, MeanPoolConfig(in_dim=24, width=32, depth=6)], ids=["longnet", "mean"]
)
def test_batch_equals_singles_with_modalities_missing(encoder):
    """Row by row: everything, no slides, no expression, neither."""
    golden = load("modaltune_gigapath_avg_sum_clinical")
    config = dataclasses.replace(model_config("modaltune_gigapath_avg_sum_clinical"), encoder=encoder)
    model = build(config)
    # gamma is zero at the start; without it the injector would not be tested.
    for interaction in model.adapter.interactions:
        interaction.injector.gamma[...] = jnp.full(32, 0.3)
    batch = batch_of(golden, (100, 3, 203, 100), bucket=255)
    present = jnp.array([[1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
    batch = batch._replace(present=present, length=jnp.where(present[:, 0], batch.length, 0))
    run = jax.jit(lambda batch: model(batch).embedding)
    batched = run(batch)
    assert bool(jnp.isfinite(batched).all())
    for row in range(4):
        single = run(jax.tree.map(lambda x, row=row: x[row : row + 1], batch))
        np.testing.assert_allclose(batched[row], single[0], rtol=1e-4, atol=1e-5)


def test_absent_modalities_have_no_influence_and_no_gradient():
    golden, model = load("modaltune_gigapath_avg_sum"), build(model_config("modaltune_gigapath_avg_sum"))
    for interaction in model.adapter.interactions:
        interaction.injector.gamma[...] = jnp.full(32, 0.3)
    batch = batch_of(golden, (100, 100), bucket=127)
    batch = batch._replace(
        present=jnp.array([[0, 1, 1], [1, 0, 1]], bool), length=jnp.array([0, 100], jnp.int32)
    )

    def total(features, expression):
        return model(batch._replace(features=features, expression=expression)).embedding.sum()

    image, genes = jax.jit(jax.grad(total, argnums=(0, 1)))(batch.features, batch.expression)
    for nothing in (image[0], image[1, 100:], genes[1]):
        np.testing.assert_array_equal(nothing, 0.0)
    for something in (image[1, :100], genes[0]):
        assert float(jnp.abs(something).max()) > 0
