import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.convert import titan
from modaltune_jax.convert.modaltune import rules, to_params, to_tensors
from modaltune_jax.inputs.bags import Bag, join_slides, merge_cells, pad
from modaltune_jax.models.adapter import AdapterConfig
from modaltune_jax.models.encoders.base import SlideEncoder
from modaltune_jax.models.encoders.titan import Titan, TitanConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune, ModelConfig
from modaltune_jax.models.pathways import PathwayConfig
from modaltune_jax.types import TASKS, Batch, InputError, Slide
from tests.golden import DATA, MANIFEST, load, relative_error, weights

VARIANTS = ("modaltune_titan_gene", "modaltune_titan_gene_clinical")
LENGTHS = (1, 40, 150)
GROUPS = tuple(np.array(group) for group in MANIFEST[VARIANTS[0]]["groups"])
TABLE = rules([len(group) for group in GROUPS], num_mixers=3, num_stages=3, encoder=titan.RULES)
KEYS = DATA / "checkpoint_keys.json"


def recorded_config(variant: str) -> ModelConfig:
    manifest = MANIFEST[variant]
    encoder = TitanConfig(
        in_dim=manifest["in_chans"],
        width=manifest["dim"],
        depth=manifest["depth"],
        num_heads=manifest["heads"],
        mlp_dim=4 * manifest["dim"],
        pooler_heads=manifest["pooler_heads"],
        num_caption_queries=manifest["pooler_queries"],
    )
    clinical = ("clinical",) if variant.endswith("clinical") else ()
    return ModelConfig(
        encoder=encoder,
        adapter=AdapterConfig(((0, 2), (2, 4), (4, 6)), 0.25, 4, 0.25, 2, 0.0),
        pathways=PathwayConfig(12, 3, 0.5, 0.5, 5, 0.0),
        modalities=("slides", "expression", *clinical),
        tasks=TASKS,
        expression_agg=manifest["prompt_agg"],
        fusion=manifest["token_agg"],
        embedding_dim=manifest["output_dim"],
    )


def golden_model(variant: str) -> tuple[ModalTune, dict]:
    golden, config = load(variant), recorded_config(variant)
    model = nnx.eval_shape(lambda: ModalTune(config, ModalInputs(GROUPS, 5), rngs=nnx.Rngs(0)))
    params = to_params(weights(golden), nnx.to_pure_dict(nnx.state(model)), TABLE)
    nnx.update(model, jax.tree.map(jnp.asarray, params))
    return model, golden


@pytest.fixture(scope="module", params=VARIANTS)
def recorded(request):
    """A recorded model and its numbers."""
    return golden_model(request.param)


def recorded_bags(golden, lengths, bucket):
    """Recorded slides through the host's grid, in one batch with garbage in the padding rows."""
    features = np.full((len(lengths), bucket, 20), 7.0, np.float32)
    cells = np.full((len(lengths), bucket, 2), 3, np.int32)
    for row, length in enumerate(lengths):
        slide = Slide("S", golden[f"x/{length}"][0], golden[f"coords/{length}"][0].astype(np.int32), 1024)
        pad(merge_cells(join_slides([slide], origin="slide")), bucket, Bag(features[row], cells[row]))
    return features, cells, np.array(lengths, np.int32)


def batch_of(golden, lengths, bucket) -> Batch:
    features, cells, length = recorded_bags(golden, lengths, bucket)
    num = len(lengths)
    clinical = [golden.get(f"clinical/{length}", np.zeros((1, 5), np.float32))[0] for length in lengths]
    batch = Batch(
        features=features,
        cells=cells,
        length=length,
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


def small(**changes):
    config = TitanConfig(
        in_dim=6, width=24, depth=2, num_heads=6, mlp_dim=32, pooler_heads=2, num_caption_queries=3
    )
    return Titan(dataclasses.replace(config, **changes), rngs=nnx.Rngs(0))


def bags(b, l, seed=0):
    rng = np.random.default_rng(seed)
    features, cells = rng.normal(size=(b, l, 6)), rng.integers(0, 30, (b, l, 2))
    return jnp.asarray(features, jnp.float32), jnp.asarray(cells, jnp.int32)


def all_outputs(model, features, cells, length):
    """Contrastive pool, its projection, caption tokens."""
    tokens = model.encode(features, cells, length)
    pooled = model.slide_embedding(features, cells, length, project=False)
    return pooled, model(features, cells, length), model.caption_tokens(tokens)


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [pytest.param((40,), 40, id="unpadded"), pytest.param(LENGTHS, 170, id="all in one padded batch")],
)
def test_plain_encoder_as_recorded(recorded, lengths, bucket):
    model, golden = recorded
    outputs = jax.jit(lambda *bags: all_outputs(model.encoder, *bags))(
        *recorded_bags(golden, lengths, bucket)
    )
    for name, output in zip(("pooled", "slide", "tokens"), outputs, strict=True):
        for row, length in enumerate(lengths):
            assert relative_error(output[row : row + 1], golden[f"{name}/{length}"]) < 1e-5, (name, length)


def test_task_embeddings_as_recorded(recorded):
    """All lengths in one padded batch: batching and padding are part of the parity."""
    model, golden = recorded
    out = jax.jit(lambda batch: model(batch).embedding)(batch_of(golden, LENGTHS, 170))
    for row, length in enumerate(LENGTHS):
        assert relative_error(out[row], golden[f"out/{length}"]) < 1e-4, length


def test_public_names_round_trip(recorded):
    model, golden = recorded
    tensors = to_tensors(nnx.to_pure_dict(nnx.state(model)), TABLE)
    public = weights(golden)
    assert tensors.keys() == public.keys()
    for name, value in public.items():
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)


def test_encoder_alone_converts_under_its_prefix(recorded):
    model, golden = recorded
    params = nnx.to_pure_dict(nnx.state(model.encoder))
    tensors = titan.to_tensors(params)
    np.testing.assert_array_equal(tensors["proj"], golden["w/proj"])
    again = titan.to_params({f"vision_encoder.{name}": value for name, value in tensors.items()}, params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_published_sizes_and_names():
    """48.5 M frozen parameters (Ramanathan et al. 2025); every public tensor has its one place."""
    entry = next(v for k, v in json.loads(KEYS.read_text()).items() if k.startswith("TITAN"))
    assert len(entry) == 96
    model = nnx.eval_shape(lambda: Titan(TitanConfig.published(), rngs=nnx.Rngs(0)))
    abstract = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in entry.items()}
    params = titan.to_params(tensors, abstract)
    assert round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6, 1) == 48.5
    public = {f"vision_encoder.{name}": list(x.shape) for name, x in titan.to_tensors(params).items()}
    assert public == entry


def test_is_a_slide_encoder():
    assert isinstance(small(), SlideEncoder)


def test_padding_changes_nothing_and_gets_no_gradient():
    """Garbage in the padding rows of a batch: the same outputs and gradients as single bags."""
    graphdef, params = nnx.split(small(depth=1))
    lengths = (20, 0)
    features, cells = bags(len(lengths), 20)

    @jax.jit
    def run(params, features, cells, length):
        def loss(params, features):
            outputs = all_outputs(nnx.merge(graphdef, params), features, cells, length)
            return sum(jnp.sum(jnp.sin(output)) for output in outputs), outputs

        gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, features)
        return outputs, *gradients

    singles = jax.device_get(
        [
            run(params, features[i : i + 1, :n], cells[i : i + 1, :n], jnp.asarray([n]))
            for i, n in enumerate(lengths)
        ]
    )
    garbage, other_cells = bags(len(lengths), 33, seed=1)
    real = (np.arange(33) < np.asarray(lengths)[:, None])[..., None]
    padding = ((0, 0), (0, 13), (0, 0))
    batch = np.where(real, np.pad(features, padding), 100 * garbage)
    batch_cells = np.where(real, np.pad(cells, padding), 10_000 * other_cells)
    together = run(params, batch, batch_cells, jnp.asarray(lengths))
    outputs, params_gradient, gradient = jax.device_get(together)
    for i, (n, (single, _, single_gradient)) in enumerate(zip(lengths, singles, strict=True)):
        for ours, alone in zip(outputs, single, strict=True):
            np.testing.assert_allclose(ours[i], alone[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient[i, :n], single_gradient[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(gradient[i, n:], 0.0)
    summed = jax.tree.map(lambda *g: sum(g), *[single[1] for single in singles])
    for a, b in zip(jax.tree.leaves(params_gradient), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_order_of_tokens_does_not_matter_and_their_places_do():
    model = small()
    features, cells = bags(1, 17)
    order = np.random.default_rng(2).permutation(17)
    run = jax.jit(lambda *bags: all_outputs(model, *bags))
    length = jnp.asarray([17])
    expected = run(features, cells, length)
    for shuffled, output in zip(run(features[:, order], cells[:, order], length), expected, strict=True):
        np.testing.assert_allclose(shuffled, output, rtol=1e-5, atol=1e-5)
    for moved, output in zip(run(features, cells + 1000, length), expected, strict=True):
        np.testing.assert_allclose(moved, output, rtol=1e-5, atol=1e-5)
    for other, output in zip(run(features, cells[:, order], length), expected, strict=True):
        assert relative_error(other, output) > 1e-3


def test_case_without_slides():
    """Finite outputs and gradients; the image plays no part in the embedding."""
    golden, config = load(VARIANTS[0]), recorded_config(VARIANTS[0])
    model = ModalTune(config, ModalInputs(GROUPS, 5), rngs=nnx.Rngs(0))
    batch = batch_of(golden, (40, 40), bucket=47)
    batch = batch._replace(present=batch.present.at[0, 0].set(False), length=jnp.array([0, 40], jnp.int32))

    @jax.jit
    def run(features):
        def total(features):
            output = model(batch._replace(features=features))
            return output.embedding.sum(), output

        return jax.grad(total, has_aux=True)(features)

    dx, output = run(batch.features)
    assert bool(jnp.isfinite(output.embedding).all())
    np.testing.assert_array_equal(output.image[0], 0.0)
    np.testing.assert_array_equal(run(-batch.features)[1].embedding[0], output.embedding[0])
    np.testing.assert_array_equal(dx[0], 0.0)
    assert bool(jnp.isfinite(dx).all())
    assert float(jnp.abs(dx[1, :40]).max()) > 0


def test_key_biases_have_exactly_no_gradient():
    """They add the same to all logits of a query; their neighbours in the packed arrays do not."""
    graphdef, params = nnx.split(small())
    features, cells = bags(1, 9)

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = all_outputs(nnx.merge(graphdef, params), features, cells, jnp.asarray([9]))
        return sum(jnp.sum(jnp.sin(output)) for output in outputs)

    found = gradient(params)
    packed = [block.attn.qkv.bias[...] for block in found.blocks.values()]
    packed += [pool.attn.in_proj_bias[...] for pool in (found.attn_pool, found.attn_pool_contrastive)]
    for query, key, value in (jnp.split(bias, 3) for bias in packed):
        np.testing.assert_array_equal(key, 0.0)
        assert np.any(query)
        assert np.any(value)


def with_config(model, **changes):
    """The same weights under a changed configuration."""
    other = Titan(dataclasses.replace(model.config, **changes), rngs=nnx.Rngs(0))
    nnx.update(other, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return other


def test_remat_computes_blocks_again_and_changes_no_gradient():
    features, cells = bags(2, 12)

    def gradient(model):
        return jax.jit(jax.grad(lambda x: jnp.sum(model(x, cells, jnp.asarray([12, 5]))[:, 0])))

    plain, remat = gradient(small()), gradient(small(remat=True))
    np.testing.assert_allclose(plain(features), remat(features), rtol=1e-5, atol=1e-6)
    assert "remat" in str(jax.make_jaxpr(remat)(features))
    assert "remat" not in str(jax.make_jaxpr(plain)(features))


def test_scanned_blocks_are_blocks_one_by_one():
    features, cells = bags(2, 12)
    model = small(depth=3, remat=True)

    def both(model):
        run = jax.value_and_grad(lambda x: jnp.sum(model(x, cells, jnp.asarray([12, 5]))[:, 0]))
        return run, jax.jit(run)(features)

    (_, one_by_one), (scanned, same) = both(model), both(with_config(model, scan_layers=True))
    np.testing.assert_allclose(same[0], one_by_one[0], rtol=1e-5)
    np.testing.assert_allclose(same[1], one_by_one[1], rtol=1e-5, atol=1e-6)
    deeper, _ = both(small(depth=5, remat=True, scan_layers=True))
    products = [str(jax.make_jaxpr(run)(features)).count("dot_general") for run in (scanned, deeper)]
    assert products[0] == products[1]


def test_bfloat16_stays_close_and_returns_float32():
    model = small()
    features, cells = bags(2, 12)
    length = jnp.asarray([12, 5])
    exact = jax.jit(lambda *bags: all_outputs(model, *bags))(features, cells, length)
    half = with_config(model, dtype="bfloat16")
    rounded = jax.jit(lambda *bags: all_outputs(half, *bags))(features.astype(jnp.bfloat16), cells, length)
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == jnp.float32
        assert 0 < relative_error(ours, theirs) < 3e-2


def test_stages_are_the_whole_and_a_key_changes_nothing():
    model = small()
    features, cells = bags(2, 12)
    length = jnp.asarray([12, 5])

    @jax.jit
    def run(features):
        tokens = model.embed(features, cells, length)
        halves = model.run_blocks(model.run_blocks(tokens, 0, 1, jax.random.key(0)), 1, 2, jax.random.key(1))
        return model.pool(halves), model.pool(model.encode(features, cells, length))

    np.testing.assert_allclose(*run(features), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"num_heads": 5}, "width 24 must be a multiple of num_heads 5", id="heads"),
        pytest.param({"pooler_heads": 7}, "pooler_heads 7", id="pooler heads"),
        pytest.param({"depth": 0}, "depth is 0", id="no block"),
        pytest.param({"num_caption_queries": 0}, "num_caption_queries is 0", id="no query"),
        pytest.param({"dtype": "float16"}, "float16", id="dtype"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)
