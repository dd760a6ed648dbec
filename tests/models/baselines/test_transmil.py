"""TransMIL's parts against what they stand for: exact attention, convolutions of one image, squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.models.baselines.nystrom import NystromAttention, convolve, part_means, pseudo_inverse
from modaltune_jax.models.baselines.transmil import PositionEncoding, square


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9, 10, 17])
def test_a_square_repeats_the_first_tiles(length):
    side = int(np.ceil(np.sqrt(length)))
    places = square(jnp.array([length]), 20)
    assert places.source.shape == (1, 25)
    assert int(places.side[0]) == side
    want = [*range(length), *range(side**2 - length)]
    np.testing.assert_array_equal(places.source[0, : side**2], want)
    assert int(places.is_real.sum()) == side**2


def test_no_tile_is_no_square():
    places = square(jnp.array([0]), 5)
    assert not places.is_real.any()
    assert int(places.side[0]) == 0


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8])
def test_landmarks_are_means_of_equal_parts(length):
    x = normal(1, 1, 8, 2)
    x[:, :, length:] = 0.0
    means, is_used = part_means(jnp.asarray(x), jnp.array([length]), 3)
    parts = [list(part) for part in np.split(np.arange(length), _edges(length, min(length, 3)))]
    assert np.asarray(is_used)[0].tolist() == [True] * len(parts) + [False] * (3 - len(parts))
    for i, part in enumerate(parts):
        np.testing.assert_allclose(means[0, 0, i], x[0, 0, part].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(means[0, 0, len(parts) :], 0.0)


def _edges(length, num_parts):
    return [int(np.ceil(length * i / num_parts)) for i in range(1, num_parts)]


def test_the_iteration_finds_the_inverse_and_leaves_zeros():
    matrix = np.zeros((2, 4, 4), np.float32)
    matrix[:, :3, :3] = np.exp(normal(2, 3, 3))
    matrix /= np.maximum(matrix.sum(-1, keepdims=True), 1e-9)
    found = np.asarray(pseudo_inverse(jnp.asarray(matrix), 20))
    np.testing.assert_allclose(found, np.linalg.pinv(matrix, rcond=1e-6), rtol=1e-2, atol=2e-2)
    np.testing.assert_array_equal(found[:, 3], 0.0)
    np.testing.assert_array_equal(found[:, :, 3], 0.0)


def test_with_a_landmark_a_token_it_is_softmax_attention():
    """K K⁺ K = K: nothing is lost where every token is a landmark."""
    length, heads, dim = 5, 2, 6
    layer = NystromAttention(dim, heads, 8, 25, 3, 0.0, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
    x = normal(2, 9, dim)
    out = jax.jit(layer)(jnp.asarray(x), jnp.array([length, 9]))[0, :length]
    qkv = (x[0, :length] @ np.asarray(layer.qkv.kernel)).reshape(length, 3, heads, dim // heads)
    q, k, v = qkv.transpose(1, 2, 0, 3)
    logits = np.einsum("hnc,hmc->hnm", q, k) * (dim // heads) ** -0.5
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixed = np.einsum("hnm,hmc->nhc", probs, v).reshape(length, dim)
    want = mixed @ np.asarray(layer.out.kernel) + np.asarray(layer.out.bias)
    np.testing.assert_allclose(out, want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("rows", "size"), [(1, 3), (5, 3), (64, 5), (130, 33), (7, 81)])
def test_values_are_convolved_along_the_sequence_a_kernel_a_head(rows, size):
    v, kernel = normal(1, 2, rows, 3), normal(size, 2, seed=1)
    padded = np.pad(v, ((0, 0), (0, 0), (size // 2, size // 2), (0, 0)))
    want = sum(padded[:, :, j : j + rows] * kernel[j][None, :, None, None] for j in range(size))
    np.testing.assert_allclose(convolve(jnp.asarray(v), jnp.asarray(kernel)), want, rtol=1e-4, atol=1e-5)


def test_positions_are_convolutions_of_each_case_s_own_square():
    layer = PositionEncoding(2, (3, 1), rngs=nnx.Rngs(0))
    for conv in layer.convs:
        conv.bias[...] = jnp.asarray(normal(2, seed=2))
    places = square(jnp.array([4, 9]), 9)
    tokens = normal(2, 9, 2)
    found = np.asarray(jax.jit(layer)(jnp.asarray(tokens), places))
    kernel, single = (np.asarray(conv.kernel)[:, :, 0] for conv in layer.convs)
    bias = sum(np.asarray(conv.bias) for conv in layer.convs)
    for i, side in enumerate((2, 3)):
        image = tokens[i, : side**2].reshape(side, side, 2)
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        conv = sum(padded[r : r + side, c : c + side] * kernel[r, c] for r in range(3) for c in range(3))
        want = (image + conv + image * single[0, 0] + bias).reshape(-1, 2)
        np.testing.assert_allclose(found[i, : side**2], want, rtol=1e-5, atol=1e-6)
