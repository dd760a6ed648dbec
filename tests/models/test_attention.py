import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.models.encoders.attention import attend


def make(n, s, t, h, d, dtype=jnp.float32):
    """q, k, v and a cotangent of the output."""
    rng = np.random.default_rng(0)
    shapes = [(n, s, h, d), (n, t, h, d), (n, t, h, d), (n, s, h, d)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def plain(q, k, v, kv_len):
    logits = jnp.einsum("nshd,nthd->nsht", q, k) / jnp.sqrt(q.shape[-1])
    seen = jnp.arange(k.shape[1]) < kv_len[:, None]
    logits = jnp.where(seen[:, None, None], logits, -jnp.inf)
    o = jnp.einsum("nsht,nthd->nshd", jax.nn.softmax(logits), v)
    return o, jax.nn.logsumexp(logits, axis=-1)


SIZES = [
    pytest.param((3, 8, 8, 4, 6), 10**6, id="one block"),
    pytest.param((3, 8, 8, 4, 6), 64 * 5, id="rows in blocks of 4 of 12"),
    pytest.param((2, 11, 8, 3, 4), 30, id="queries in chunks that do not divide"),
    pytest.param((1, 5, 7, 1, 4), 1, id="one query at a time"),
    pytest.param((2, 1, 1, 1, 2), 10**6, id="one query, one key"),
]


@pytest.mark.parametrize(("size", "block"), SIZES)
def test_equals_plain_attention_with_gradients(size, block):
    q, k, v, do = make(*size)
    kv_len = jnp.asarray([size[2], max(1, size[2] // 2), 1][: size[0]])
    ours = functools.partial(attend, kv_len=kv_len, block=block)

    @jax.jit
    def both(q, k, v, do):
        results = []
        for attention in (lambda *qkv: ours(*qkv), lambda *qkv: plain(*qkv, kv_len)):
            (o, lse), pullback = jax.vjp(attention, q, k, v)
            results.append((o, lse, pullback((do, jnp.zeros_like(lse)))))
        return results

    mine, theirs = both(q, k, v, do)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_log_sum_exp_is_constant_to_differentiation():
    q, k, v, _ = make(1, 4, 4, 2, 4)
    gradient = jax.grad(lambda q: jnp.sum(attend(q, k, v, jnp.asarray([4]))[1]))(q)
    np.testing.assert_array_equal(gradient, 0.0)


def test_keys_beyond_the_length_are_not_seen():
    q, k, v, do = make(2, 4, 6, 2, 4)
    kv_len = jnp.asarray([3, 5])
    beyond = (jnp.arange(6) >= kv_len[:, None])[..., None, None]

    @jax.jit
    def run(k, v):
        (o, lse), pullback = jax.vjp(lambda *qkv: attend(*qkv, kv_len), q, k, v)
        return o, lse, pullback((do, jnp.zeros_like(lse)))

    first, second = run(k, v), run(jnp.where(beyond, 50.0, k), jnp.where(beyond, -70.0, v))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    for gradient in first[2][1:]:
        assert not np.any(np.where(beyond, gradient, 0.0))
        assert np.any(gradient)


def test_no_keys_give_zeros_and_finite_gradients():
    q, k, v, do = make(1, 4, 4, 2, 4)
    (o, lse), pullback = jax.vjp(lambda *qkv: attend(*qkv, jnp.asarray([0])), q, k, v)
    np.testing.assert_array_equal(o, 0.0)
    for gradient in pullback((do, jnp.zeros_like(lse))):
        np.testing.assert_array_equal(gradient, 0.0)


def test_bfloat16_keeps_the_log_sum_exp_in_float32():
    q, k, v, _ = make(2, 16, 16, 2, 8, jnp.bfloat16)
    kv_len = jnp.asarray([16, 9])

    @jax.jit
    def run(q, k, v):
        (o, lse), pullback = jax.vjp(lambda *qkv: attend(*qkv, kv_len), q, k, v)
        return o, lse, pullback((o, lse))

    o, lse, gradients = run(q, k, v)
    expected, expected_lse = plain(*(x.astype(jnp.float32) for x in (q, k, v)), kv_len)
    assert o.dtype == jnp.bfloat16
    assert lse.dtype == jnp.float32
    assert all(x.dtype == jnp.bfloat16 for x in gradients)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(o.astype(jnp.float32), expected, rtol=2e-2, atol=2e-2)


def test_long_rows_never_hold_all_logits():
    """The third branch of Prov-GigaPath on 25 600 tiles: 6 400 rows, 16 heads, 2.6 GB of logits."""
    q, k, v, do = [jax.ShapeDtypeStruct((1, 6400, 16, 48), jnp.float32)] * 4

    def step(q, k, v, do):
        o, pullback = jax.vjp(lambda *qkv: attend(*qkv, jnp.asarray([6400]))[0], q, k, v)
        return o, pullback(do)

    memory = jax.jit(step).lower(q, k, v, do).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * 16 * 6400**2 * 4
