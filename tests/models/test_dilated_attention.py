import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.convert import gigapath
from modaltune_jax.models.encoders.dilated_attention import dilated_attention
from modaltune_jax.models.encoders.longnet import LongNetConfig, SelfAttention
from tests.golden import MANIFEST, fill, load, relative_error, weights

run = jax.jit(dilated_attention, static_argnums=(4, 5))


def literal(q, k, v, segments, ratios):
    """The rules of method and paper in float64 loops, for one case `[n, h, d]` without padding."""
    n, h, d = q.shape
    outputs, lses = np.zeros((len(segments), n, h, d)), np.full((len(segments), n, h), -1e8)
    for branch, (segment, ratio) in enumerate(zip(segments, ratios, strict=True)):
        segment = min(segment, n)
        per_group = -(-h // ratio)
        for start in range(0, n, segment):
            for head in range(h):
                positions = start + head // per_group + ratio * np.arange(-(-segment // ratio))
                inside = (positions < start + segment) & (positions < n)
                rows = positions[inside]
                zeros = np.zeros((np.sum(~inside), d))
                keys, values = (np.concatenate([x[rows, head], zeros]) for x in (k, v))
                logits = q[rows, head] @ keys.T / np.sqrt(d)
                lse = np.log(np.sum(np.exp(logits), axis=-1))
                outputs[branch, rows, head] = np.exp(logits - lse[:, None]) @ values
                lses[branch, rows, head] = lse
    mix = np.exp(lses - lses.max(axis=0))
    return np.sum((mix / mix.sum(axis=0))[..., None] * outputs, axis=0)


SHAPES = [
    pytest.param((8, 16, 44), (1, 2, 4), 8, id="as published, small"),
    pytest.param((8, 16, 44), (1, 2, 4), 6, id="heads that no ratio 4 divides"),
    pytest.param((5, 9, 30), (2, 4, 7), 3, id="segments and heads that no ratio divides"),
    pytest.param((4, 12), (3, 16), 2, id="no branch sees every row"),
    pytest.param((1, 3), (1, 5), 2, id="segments shorter than their ratio"),
    pytest.param((64,), (1,), 2, id="one full attention"),
]


def qkv(b, n, h, d=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(b, n, h, d)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("bucket", [17, 60])
@pytest.mark.parametrize(("segments", "ratios", "heads"), SHAPES)
def test_every_length_in_a_bucket_equals_the_literal_rules(segments, ratios, heads, bucket):
    """All lengths from 1 to the bucket in one batch, with garbage in the padding rows."""
    q, k, v = qkv(bucket, bucket, heads)
    lengths = np.arange(1, bucket + 1)
    ours = np.asarray(run(q, k, v, jnp.asarray(lengths), segments, ratios))
    assert np.all(np.isfinite(ours))
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    for i, n in enumerate(lengths):
        theirs = literal(q[i, :n], k[i, :n], v[i, :n], segments, ratios)
        np.testing.assert_allclose(ours[i, :n], theirs, rtol=1e-5, atol=2e-6, err_msg=f"length {n}")


@functools.partial(jax.jit, static_argnums=(5, 6))
def gradients(q, k, v, g, length, segments, ratios):
    """Of the real rows' inner product with `g`."""

    def loss(q, k, v):
        real = jnp.arange(q.shape[1]) < length[:, None]
        o = dilated_attention(q, k, v, length, segments, ratios)
        return jnp.sum(jnp.where(real[..., None, None], o * g, 0.0))

    return jax.grad(loss, argnums=(0, 1, 2))(q, k, v)


def test_gradients_of_padded_equal_those_of_unpadded():
    """Fewer rows than a ratio, borders of the first and last segment, no padding at all."""
    lengths = np.asarray([3, 8, 9, 45, 60])
    arrays = [*qkv(len(lengths), 60, 8), qkv(len(lengths), 60, 8, seed=1)[0]]
    shape = ((8, 16, 44), (1, 2, 4))
    padded = jax.device_get(gradients(*arrays, jnp.asarray(lengths), *shape))
    for i, n in enumerate(lengths):
        unpadded = gradients(*(x[i : i + 1, :n] for x in arrays), jnp.asarray([n]), *shape)
        for a, b in zip(padded, unpadded, strict=True):
            np.testing.assert_allclose(a[i, :n], b[0], rtol=1e-4, atol=1e-5, err_msg=f"length {n}")
            np.testing.assert_array_equal(a[i, n:], 0.0)
            assert np.any(b)


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [
        pytest.param((1023,), 1023, id="one row before the first segment ends"),
        pytest.param((1025,), 1025, id="one row into the second segment"),
        pytest.param((1023, 1025, 3001, 7000), 7000, id="all in one batch"),
    ],
)
def test_published_segments(lengths, bucket):
    manifest, arrays = MANIFEST["longnet_real_segments"], load("longnet_real_segments")
    config = LongNetConfig(
        in_dim=1,
        width=manifest["dim"],
        depth=1,
        num_heads=manifest["heads"],
        ffn_dim=1,
        segment_lengths=tuple(manifest["segment_length"]),
        dilated_ratios=tuple(manifest["dilated_ratio"]),
    )
    attention = fill(SelfAttention(config, rngs=nnx.Rngs(0)), weights(arrays), gigapath.RULES)
    x = np.full((len(lengths), bucket, config.width), 3.0, np.float32)
    for i, n in enumerate(lengths):
        x[i, :n] = arrays[f"x/{n}"]
    ours = jax.device_get(jax.jit(attention)(x, jnp.asarray(lengths)))
    for i, n in enumerate(lengths):
        assert relative_error(ours[i : i + 1, :n:7], arrays[f"attn/{n}"]) < 1e-5
