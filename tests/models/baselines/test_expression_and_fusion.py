"""Baselines that read expression, clinical values, or genes beside slides."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.models.baselines.clinical_linear import ClinicalLinear, ClinicalLinearConfig
from modaltune_jax.models.baselines.expression_linear import ExpressionLinear, ExpressionLinearConfig
from modaltune_jax.models.baselines.fusion import BilinearFusion
from modaltune_jax.models.baselines.gene_mixer import GeneMixer, GeneMixerConfig
from modaltune_jax.models.baselines.mcat import Mcat, McatConfig
from modaltune_jax.models.baselines.mlp import Mlp, MlpConfig
from modaltune_jax.models.baselines.snn import Snn, SnnConfig
from modaltune_jax.models.baselines.sparse_mlp import SparseMlp, SparseMlpConfig
from modaltune_jax.models.baselines.survpath import SurvPath, SurvPathConfig
from modaltune_jax.models.baselines.transformer import TransformerConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.pathways import PathwayConfig
from modaltune_jax.types import MODALITIES, Batch, InputError

IN_DIM, GENES, CLINICAL = 6, 12, 4
GROUPS = (np.array([0, 3, 4]), np.array([], np.int32), np.array([1, 3, 5, 7, 9]), np.array([11]))
INPUTS = ModalInputs(GROUPS, CLINICAL, GENES)

SMALL_MCAT = McatConfig(8, TransformerConfig(1, 2, 16, 0.1), "concat", 3, 0.1)
SMALL = {
    "expression_linear": (ExpressionLinear, ExpressionLinearConfig()),
    "clinical_linear": (ClinicalLinear, ClinicalLinearConfig()),
    "mlp": (Mlp, MlpConfig((16, 8), 0.1)),
    "snn": (Snn, SnnConfig((16, 8), "selu", 0.1)),
    "sparse_mlp": (SparseMlp, SparseMlpConfig(4, 16, 0.1)),
    "gene_mixer": (GeneMixer, GeneMixerConfig(PathwayConfig(8, 1, 0.5, 0.5, 3, 0.1), 16)),
    "mcat": (Mcat, SMALL_MCAT),
    "survpath": (SurvPath, SurvPathConfig(8, 6, 16, 0.1, 0.1)),
}
TRAINED = [name for name in SMALL if not name.endswith("_linear")]
BOTH = ["mcat", "survpath"]


@functools.cache
def built(name: str):
    """The small model, and itself compiled: with its parameters as arguments it compiles once a shape."""
    module, config = SMALL[name]
    model = module(config, IN_DIM, INPUTS, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    embed = jax.jit(lambda state, batch, key: nnx.merge(graphdef, state)(batch, key))
    return model, state, embed


def cases(num: int, tiles: int = 5, seed: int = 0) -> Batch:
    """Complete cases of `tiles` tiles, but for the second, which has two."""
    rng = np.random.default_rng(seed)
    length = np.full(num, tiles, np.int32)
    length[1:2] = 2
    features = rng.normal(size=(num, tiles, IN_DIM)).astype(np.float32)
    features[np.arange(tiles) >= length[:, None]] = 0.0
    return Batch(
        features=features,
        cells=np.zeros((num, tiles, 2), np.int32),
        length=length,
        expression=rng.normal(size=(num, GENES)).astype(np.float32),
        clinical=rng.normal(size=(num, CLINICAL)).astype(np.float32),
        present=np.ones((num, len(MODALITIES)), bool),
        targets=np.zeros((num, 1, 1), np.float32),
        subtype=rng.integers(3, size=num).astype(np.int32),
        site=np.zeros(num, np.int32),
        time=np.ones(num, np.float32),
        event=np.ones(num, np.int32),
        weight=np.ones(num, np.float32),
        index=np.arange(num, dtype=np.int32),
    )


def without(batch: Batch, modality: str, row: int) -> Batch:
    """The case of a row without a modality, as the pipeline makes it."""
    batch = jax.tree.map(np.copy, batch)
    batch.present[row, MODALITIES.index(modality)] = False
    if modality == "slides":
        batch.features[row], batch.length[row] = 0.0, 0
    else:
        getattr(batch, modality)[row] = 0.0
    return batch


def embed(name: str, batch: Batch, key: jax.Array | None = None) -> np.ndarray:
    _, state, run = built(name)
    return np.asarray(run(state, batch, key))


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", SMALL)
def test_what_a_case_lacks_changes_that_case_alone(name, modality):
    complete, lacking = embed(name, cases(3)), embed(name, without(cases(3), modality, 0))
    np.testing.assert_allclose(lacking[1:], complete[1:], rtol=1e-5, atol=1e-6)
    reads = SMALL[name][0].modalities
    assert np.isfinite(lacking[0]).all()
    assert np.allclose(lacking[0], complete[0], rtol=1e-5, atol=1e-6) == (modality not in reads)
    if reads == (modality,):
        np.testing.assert_array_equal(lacking[0], 0.0)


@pytest.mark.parametrize("name", BOTH)
def test_each_modality_counts_where_the_other_is_absent(name):
    for absent, shown in (("expression", "features"), ("slides", "expression")):
        batch = without(cases(3), absent, 0)
        other = batch._replace(**{shown: getattr(cases(3, seed=1), shown)})
        assert not np.allclose(embed(name, batch)[0], embed(name, other)[0], atol=1e-4), absent


@pytest.mark.parametrize("name", BOTH)
def test_what_the_batch_holds_of_an_absent_modality_does_not_matter(name):
    batch = without(cases(3), "expression", 0)
    filled = batch._replace(expression=np.full_like(batch.expression, 3.0))
    np.testing.assert_array_equal(embed(name, filled)[0], embed(name, batch)[0])


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_finite_whatever_is_absent(name):
    """All parameters that are read get one, and a group without a measured gene is not read."""
    graphdef, state = nnx.split(built(name)[0])
    batch = without(without(cases(4), "slides", 2), "expression", 3)
    batch = jax.tree.map(jnp.asarray, without(without(batch, "slides", 0), "expression", 0))

    @jax.jit
    @jax.grad
    def gradient(state):
        return jnp.sum(jnp.sin(nnx.merge(graphdef, state)(batch)))

    named = dict(nnx.to_flat_state(gradient(state)))
    values = {path: np.asarray(value[...]) for path, value in named.items()}
    assert all(np.isfinite(value).all() for value in values.values())
    for path, value in values.items():
        if path[-1] in ("bias1", "bias2", "kernel2"):
            assert not value[1].any(), path
            assert value[0].any(), path


@pytest.mark.parametrize("name", TRAINED)
def test_a_key_switches_dropout_on(name):
    batch, keys = cases(2), jax.random.split(jax.random.key(0))
    first = embed(name, batch, keys[0])
    np.testing.assert_array_equal(first, embed(name, batch, keys[0]))
    assert not np.allclose(first, embed(name, batch, keys[1]))


def linear(in_dim, out_dim):
    return in_dim * out_dim + out_dim


def networks(members, groups, dim):
    """Per group Linear(genes of the group, dim), Linear(dim, dim)."""
    return members * dim + groups * dim + groups * linear(dim, dim)


SET_POOL = (
    # Two layers: attention with its four matrices and biases, two norms, 256 -> 512 -> 256.
    2 * (4 * linear(256, 256) + 2 * 2 * 256 + linear(256, 512) + linear(512, 256))
    # Gated attention and the projection.
    + 2 * linear(256, 256)
    + 256
    + linear(256, 256)
)
MCAT = linear(1024, 256) + networks(2363, 6, 256) + 4 * linear(256, 256) + 2 * SET_POOL
SURVPATH = (
    # 331 pathways of 9 731 memberships; tiles; norm, query, key and value; 128 -> 128 -> 128, norm.
    networks(9731, 331, 256) + linear(768, 256)
    + 2 * 256 + 3 * 256 * 128 + 2 * linear(128, 128) + 2 * 128
    + linear(2 * 128, 64)
)  # fmt: skip
MIXER = (
    networks(9731, 331, 256)
    + 3 * (2 * 2 * 256 + linear(331, 165) + linear(165, 331) + linear(256, 128) + linear(128, 256))
    + 2 * 256 + linear(256, 768) + linear(331, 64) + 2 * 768
)  # fmt: skip


@pytest.mark.parametrize(
    ("module", "config", "sizes", "in_dim", "out_dim", "expected"),
    [
        pytest.param(Mlp, MlpConfig.published(), (4987,), 0, 256,
            linear(4987, 256) + 2 * linear(256, 256), id="mlp"),
        pytest.param(Snn, SnnConfig.published(), (4987,), 0, 256,
            linear(4987, 256) + linear(256, 256), id="snn"),
        pytest.param(SparseMlp, SparseMlpConfig.published(), (4987, 331, 9731), 0, 256,
            networks(9731, 331, 256) + linear(331 * 256, 256), id="sparse_mlp"),
        pytest.param(GeneMixer, GeneMixerConfig.published(), (4987, 331, 9731), 0, 768, MIXER,
            id="gene_mixer"),
        pytest.param(Mcat, McatConfig.published(), (2363, 6, 2363), 1024, 256,
            MCAT + linear(512, 256) + linear(256, 256), id="mcat"),
        pytest.param(Mcat, dataclasses.replace(McatConfig.published(), fusion="bilinear"), (2363, 6, 2363),
            1024, 256, MCAT + 2 * (linear(256, 32) + linear(512, 32)) + linear(33 * 33, 256),
            id="mcat_bilinear"),
        pytest.param(SurvPath, SurvPathConfig.published(), (4987, 331, 9731), 768, 64, SURVPATH,
            id="survpath"),
    ],
)  # fmt: skip
def test_published_sizes(module, config, sizes, in_dim, out_dim, expected):
    """Parameters and the width of the output, from the shapes in the papers; nothing is computed."""
    num_genes, num_groups, num_members = (*sizes, 1, 1)[:3]
    groups = tuple(np.resize(np.arange(num_genes), num_members)[i::num_groups] for i in range(num_groups))
    inputs = ModalInputs(groups, 0, num_genes)
    model = nnx.eval_shape(lambda: module(config, in_dim, inputs, rngs=nnx.Rngs(0)))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == expected
    assert model.out_dim == out_dim


@pytest.mark.parametrize(
    ("module", "config", "message"),
    [
        pytest.param(Snn, SnnConfig((8,), "relu", 0.0), "selu, elu", id="activation"),
        pytest.param(Mcat, dataclasses.replace(SMALL_MCAT, fusion="sum"), "bilinear", id="fusion"),
    ],
)
def test_unknown_words(module, config, message):
    with pytest.raises(ValueError, match=message):
        module(config, IN_DIM, INPUTS, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", ["gene_mixer", "sparse_mlp", "mcat", "survpath"])
def test_records_without_gene_sets_are_told_about(name):
    module, config = SMALL[name]
    with pytest.raises(InputError, match="--gene-sets"):
        module(config, IN_DIM, ModalInputs((), CLINICAL, GENES), rngs=nnx.Rngs(0))


def test_bilinear_fusion_is_linear_in_products_of_the_gated_vectors():
    fusion = BilinearFusion(4, 2, 0.5, rngs=nnx.Rngs(0))
    one, other = (np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32) for seed in (0, 1))

    def gated(part, x, y):
        hidden = np.maximum(x @ part.reduce.kernel[...], 0.0)
        row = hidden / (1.0 + np.exp(-np.concatenate([x, y], axis=1) @ part.gate.kernel[...]))
        return np.concatenate([row, np.ones((3, 1))], axis=1)

    left, right = gated(fusion.one, one, other), gated(fusion.other, other, one)
    products = np.stack([np.kron(x, y) for x, y in zip(left, right, strict=True)])
    expected = np.maximum(products @ fusion.encode.kernel[...], 0.0)
    np.testing.assert_allclose(fusion(jnp.asarray(one), jnp.asarray(other)), expected, rtol=1e-4, atol=1e-6)


def test_tiles_do_not_read_tiles_in_survpath():
    """Nor does a tile of it reach another through the pathways: there is one layer."""
    model, _, _ = built("survpath")
    rng = np.random.default_rng(0)
    pathways, tiles = (jnp.asarray(rng.normal(size=(1, n, 8)), jnp.float32) for n in (4, 5))
    every = jnp.ones((1, 4), bool), jnp.ones((1, 5), bool)
    before = model.co_attention(pathways, tiles, *every)
    after = model.co_attention(pathways, tiles.at[:, 0, 0].add(1.0), *every)
    np.testing.assert_array_equal(before[1][:, 1:], after[1][:, 1:])
    assert not np.allclose(before[1][:, 0], after[1][:, 0])
    assert not np.allclose(before[0], after[0])
