import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.convert import gigapath
from modaltune_jax.models.encoders.longnet import Encoder, LongNet, LongNetConfig
from modaltune_jax.types import InputError
from tests.golden import MANIFEST, fill, load, relative_error, weights

LENGTHS = (1, 2, 7, 8, 9, 16, 17, 33, 48, 49, 100, 161, 203, 333)


def recorded_config(manifest, **changes):
    return LongNetConfig(
        in_dim=manifest.get("in_chans", 1),
        width=manifest["dim"],
        depth=manifest["depth"],
        num_heads=manifest["heads"],
        ffn_dim=4 * manifest["dim"],
        segment_lengths=tuple(manifest["segment_length"]),
        dilated_ratios=tuple(manifest["dilated_ratio"]),
        **changes,
    )


@pytest.fixture(scope="module")
def stack():
    """The recorded stack of layers and its numbers."""
    manifest, arrays = MANIFEST["longnet"], load("longnet")
    encoder = fill(Encoder(recorded_config(manifest), rngs=nnx.Rngs(0)), weights(arrays), gigapath.RULES)
    return encoder, arrays


@pytest.fixture(scope="module")
def slides():
    """The recorded slide encoder and its numbers."""
    manifest, arrays = MANIFEST["slide_encoder"], load("slide_encoder")
    model = fill(LongNet(recorded_config(manifest), rngs=nnx.Rngs(0)), weights(arrays), gigapath.RULES)
    return model, arrays


def with_config(model, **changes):
    """The same weights under a changed configuration."""
    other = LongNet(dataclasses.replace(model.config, **changes), rngs=nnx.Rngs(0))
    nnx.update(other, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return other


def small(**changes):
    config = LongNetConfig(
        in_dim=6,
        width=16,
        depth=2,
        num_heads=4,
        ffn_dim=24,
        segment_lengths=(8,),
        dilated_ratios=(2,),
    )
    return LongNet(dataclasses.replace(config, **changes), rngs=nnx.Rngs(0))


def bags(b, l, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b, l, dim)).astype(np.float32), rng.integers(0, 900, (b, l, 2), np.int32)


@pytest.mark.parametrize("n", [1, 7, 8, 49, 161, 333])
def test_unpadded_layer_as_recorded(stack, n):
    encoder, arrays = stack
    ours = jax.jit(lambda x: encoder.layers[0](x, jnp.full(2, n)))(jnp.asarray(arrays[f"x/{n}"]))
    assert relative_error(ours, arrays[f"layer0/{n}"]) < 1e-5


def test_all_recorded_lengths_in_one_padded_batch(stack):
    encoder, arrays = stack
    x = np.full((2 * len(LENGTHS), 340, 32), 5.0, np.float32)
    for i, n in enumerate(LENGTHS):
        x[2 * i : 2 * i + 2, :n] = arrays[f"x/{n}"]
    length = jnp.repeat(jnp.asarray(LENGTHS), 2)

    @jax.jit
    def run(x):
        layer = encoder.layers[0]
        return layer.self_attn(x, length), layer(x, length), encoder(x, length)

    attention, layer, whole = jax.device_get(run(x))
    for i, n in enumerate(LENGTHS):
        mine = slice(2 * i, 2 * i + 2), slice(n)
        assert relative_error(attention[mine], arrays[f"attn0/{n}"]) < 1e-5
        assert relative_error(layer[mine], arrays[f"layer0/{n}"]) < 1e-5
        assert relative_error(whole[mine], arrays[f"encoder/{n}"]) < 1e-4


@pytest.mark.parametrize("bucket", [100, 170])
def test_input_gradient_as_recorded(stack, bucket):
    encoder, arrays = stack
    padding = ((0, 0), (0, bucket - 100), (0, 0))
    x = np.pad(arrays["grad/x"], padding, constant_values=2.0)
    g = np.pad(arrays["grad/g"], padding)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(encoder.layers[0](x, jnp.asarray([100])) * g)))
    dx = jax.device_get(gradient(x))
    assert relative_error(dx[:, :100], arrays["grad/dx"]) < 1e-5
    np.testing.assert_array_equal(dx[:, 100:], 0.0)


def recorded_bags(arrays, lengths, bucket):
    """Recorded bags in one batch, with garbage in the padding rows."""
    features = np.full((len(lengths), bucket, 24), 5.0, np.float32)
    cells = np.full((len(lengths), bucket, 2), 3, np.int32)
    for i, n in enumerate(lengths):
        features[i, :n] = arrays[f"x/{n}"][0]
        cells[i, :n] = arrays[f"coords/{n}"][0] // 256
    return features, cells, jnp.asarray(lengths)


@pytest.mark.parametrize(
    ("lengths", "bucket", "global_pool"),
    [
        pytest.param((50,), 50, False, id="unpadded"),
        pytest.param((1, 50, 202), 230, False, id="padded"),
        pytest.param((1, 50, 202), 230, True, id="padded, mean of tiles"),
    ],
)
def test_slide_embedding_as_recorded(slides, lengths, bucket, global_pool):
    model, arrays = slides
    model = with_config(model, global_pool=global_pool)
    embeddings = jax.device_get(jax.jit(model)(*recorded_bags(arrays, lengths, bucket)))
    for i, n in enumerate(lengths):
        theirs = arrays[f"{'pool' if global_pool else 'cls'}/{n}"]
        assert relative_error(embeddings[i : i + 1], theirs) < 1e-4


def test_class_token_between_blocks_as_recorded(slides):
    model, arrays = slides
    lengths = (1, 50, 202)

    @jax.jit
    def run(features, cells, length):
        tokens = model.embed(features, cells, length)
        hidden = [model.pool(tokens)]
        for i in range(model.depth):
            tokens = model.run_blocks(tokens, i, i + 1)
            hidden.append(model.pool(tokens))
        return [model.norm(token) for token in hidden]

    for i, token in enumerate(jax.device_get(run(*recorded_bags(arrays, lengths, 202)))):
        for j, n in enumerate(lengths):
            assert relative_error(token[j : j + 1], arrays[f"hidden{i}/{n}"]) < 1e-4


def test_padding_changes_nothing_and_gets_no_gradient():
    """Garbage in the padding rows of a batch: the same embeddings and gradients as single bags."""
    model = small()
    graphdef, params = nnx.split(model)
    lengths = (7, 20)
    features, cells = bags(len(lengths), 20)

    @jax.jit
    def run(params, features, cells, length):
        def loss(params, features):
            embeddings = nnx.merge(graphdef, params)(features, cells, length)
            return jnp.sum(embeddings * jnp.arange(16.0)), embeddings

        gradients, embeddings = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, features)
        return embeddings, *gradients

    singles = [
        run(params, features[i : i + 1, :n], cells[i : i + 1, :n], jnp.asarray([n]))
        for i, n in enumerate(lengths)
    ]
    singles = jax.device_get(singles)
    of_params = jax.tree.map(lambda *g: sum(g), *[single[1] for single in singles])
    garbage, other_cells = bags(len(lengths), 33, seed=1)
    real = (np.arange(33) < np.asarray(lengths)[:, None])[..., None]
    padding = ((0, 0), (0, 13), (0, 0))
    batch = np.where(real, np.pad(features, padding), 100 * garbage)
    batch_cells = np.where(real, np.pad(cells, padding), other_cells)
    together = run(params, batch, batch_cells, jnp.asarray(lengths))
    embeddings, params_gradient, gradient = jax.device_get(together)
    for i, (n, (embedding, _, single_gradient)) in enumerate(zip(lengths, singles, strict=True)):
        np.testing.assert_allclose(embeddings[i], embedding[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient[i, :n], single_gradient[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(gradient[i, n:], 0.0)
    for a, b in zip(jax.tree.leaves(params_gradient), jax.tree.leaves(of_params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_empty_bag_is_its_class_token():
    model = small()
    features, cells = bags(2, 12)
    embedding = jax.device_get(jax.jit(model)(features, cells, jnp.asarray([0, 0])))
    np.testing.assert_array_equal(embedding[0], embedding[1])
    alone = jax.jit(model)(features[:1, :0], cells[:1, :0], jnp.asarray([0]))
    np.testing.assert_allclose(embedding[:1], alone, rtol=1e-5, atol=1e-5)


def test_compiles_once_per_bucket():
    model = small()
    traces = []

    @jax.jit
    def run(features, cells, length):
        traces.append(features.shape)
        return model(features, cells, length)

    for bucket in (8, 24, 8, 24):
        for length in (1, bucket - 1, bucket):
            run(*bags(1, bucket), jnp.asarray([length]))
    assert traces == [(1, 8, 6), (1, 24, 6)]


def test_remat_computes_layers_again_and_changes_no_gradient():
    features, cells = map(jnp.asarray, bags(2, 12))

    def gradient(model):
        return jax.jit(jax.grad(lambda x: jnp.sum(model(x, cells, jnp.asarray([12, 5]))[:, 0])))

    plain, remat = gradient(small()), gradient(small(remat=True))
    np.testing.assert_allclose(plain(features), remat(features), rtol=1e-5, atol=1e-6)
    # Without, no matrix product of a linear layer and no attention is computed again.
    products = [str(jax.make_jaxpr(run)(features)).count("dot_general") for run in (plain, remat)]
    # Otherwise queries, keys, values, output and fc1 are, and two products of attention for the whole segment
    # and two for the rest; nobody asks for fc2 again.
    assert products[1] - products[0] == small().depth * (5 + 2 * 2)


@pytest.mark.parametrize("remat", [False, True])
def test_scanned_layers_are_layers_one_by_one(remat):
    """Tokens, and gradients of tokens and of every parameter; from the second layer on, as in a stage."""
    rates = {"dropout": 0.2, "activation_dropout": 0.1, "drop_path": 0.5}
    model, key = small(depth=3, remat=remat, **rates), jax.random.key(2)
    tokens, weight = embed(model, 12, 5), np.random.default_rng(0).normal(size=(2, 12, 16))

    def both(model):
        graphdef, params = nnx.split(model)

        def loss(params, tiles):
            after = nnx.merge(graphdef, params).run_blocks(tokens._replace(tiles=tiles), 1, 3, key)
            real = jnp.arange(12) < tokens.length[:, None]
            return jnp.sum(jnp.where(real[..., None], after.tiles, 0.0) * weight), after

        (_, after), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, tokens.tiles)
        return jax.device_get((after.cls, after.tiles[0], after.tiles[1, :5])), jax.device_get(gradients)

    (one_by_one, gradients), (scanned, scanned_gradients) = (
        both(model),
        both(with_config(model, scan_layers=True)),
    )
    assert jax.tree.structure(gradients) == jax.tree.structure(scanned_gradients)
    for a, b in zip(one_by_one, scanned, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(scanned_gradients), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6 * largest)


def test_scanned_layers_make_no_larger_program():
    """Products of the gradient; stacking the parameters is all that grows."""

    def products(**changes):
        model, (features, cells) = small(**changes), map(jnp.asarray, bags(1, 12))
        run = jax.grad(lambda x: jnp.sum(model(x, cells, jnp.asarray([12]))))
        return jax.jit(run).lower(features).as_text().count("dot_general")

    assert products(depth=2, scan_layers=True) == products(depth=5, scan_layers=True)
    assert products(depth=2) < products(depth=5)


def test_bfloat16_stays_close_and_returns_float32():
    model = small()
    features, cells = bags(2, 12)
    length = jnp.asarray([12, 5])
    exact = jax.jit(model)(features, cells, length)
    rounded = jax.jit(with_config(model, dtype="bfloat16"))(features, cells, length)
    assert rounded.dtype == jnp.float32
    assert 0 < relative_error(rounded, np.asarray(exact)) < 3e-2


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def jitted_blocks(graphdef, params, tokens, start, stop, key):
    return nnx.merge(graphdef, params).run_blocks(tokens, start, stop, key)


def run_blocks(model, tokens, start, stop, key):
    return jax.device_get(jitted_blocks(*nnx.split(model), tokens, start, stop, key))


def embed(model, *lengths):
    """Tokens of random bags, all in one batch."""
    features, cells = bags(len(lengths), max(lengths))
    return jax.jit(model.embed)(features, cells, jnp.asarray(lengths))


@pytest.mark.parametrize("rates", [{"dropout": 0.3}, {"activation_dropout": 0.3}, {"drop_path": 0.6}])
def test_each_rate_acts_with_a_key_and_only_then(rates):
    model, plain = small(**rates), small()
    tokens = embed(plain, 12, 5, 12, 9)
    evaluation = run_blocks(plain, tokens, 1, 2, None).tiles
    np.testing.assert_array_equal(run_blocks(plain, tokens, 1, 2, jax.random.key(0)).tiles, evaluation)
    np.testing.assert_array_equal(run_blocks(model, tokens, 1, 2, None).tiles, evaluation)
    first, again, other = (run_blocks(model, tokens, 1, 2, jax.random.key(i)).tiles for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, evaluation)
    assert not np.array_equal(first, other)


def test_stochastic_depth_drops_branches_of_whole_cases_and_never_in_the_first_layer():
    model = small(drop_path=0.5)
    tokens, key = jax.device_get(embed(model, *[6] * 32)), jax.random.key(0)
    first = run_blocks(model, tokens, 0, 1, key)
    np.testing.assert_array_equal(first.tiles, run_blocks(model, tokens, 0, 1, None).tiles)
    last = run_blocks(model, tokens, 1, 2, key)
    untouched = np.all(last.tiles == tokens.tiles, axis=(1, 2)) & np.all(last.cls == tokens.cls, axis=1)
    assert 0.02 < np.mean(untouched) < 0.6  # both branches dropped: a quarter


def test_layers_draw_from_keys_of_their_own():
    """Two stages with one key are the whole: the cut into stages does not change a draw."""
    model = small(dropout=0.3)
    tokens, key = embed(model, 6), jax.random.key(3)
    whole = run_blocks(model, tokens, 0, 2, key)
    stages = run_blocks(model, run_blocks(model, tokens, 0, 1, key), 1, 2, key)
    np.testing.assert_allclose(whole.tiles, stages.tiles, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.cls, stages.cls, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"width": 18}, "width 18", id="width no multiple of heads"),
        pytest.param({"width": 10, "num_heads": 5}, "multiple of 4", id="width no multiple of 4"),
        pytest.param({"dilated_ratios": (1, 2)}, "same branches", id="a ratio too many"),
        pytest.param({"segment_lengths": (0,)}, "positive", id="empty segment"),
        pytest.param({"dropout": 1.0}, "dropout", id="nothing left"),
        pytest.param({"dtype": "float16"}, "float16", id="dtype"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)
