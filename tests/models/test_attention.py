import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.models.encoders.alibi import GridBias, head_slopes
from modaltune_jax.models.encoders.attention import attend, xla
from tests.golden import relative_error


def make(n, s, t, h, d, dtype=jnp.float32):
    """q, k, v and a cotangent of the output."""
    rng = np.random.default_rng(0)
    shapes = [(n, s, h, d), (n, t, h, d), (n, t, h, d), (n, s, h, d)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def make_bias(n, s, h):
    """Random cells; the first and the fourth token of every row have none."""
    cells = np.random.default_rng(1).integers(-5, 40, (n, s, 2), np.int32)
    placed = np.broadcast_to(~np.isin(np.arange(s), (0, 3)), (n, s))
    return GridBias(jnp.asarray(cells), jnp.asarray(placed), jnp.asarray(head_slopes(h)))


def plain(q, k, v, kv_len, bias=None):
    logits = jnp.einsum("nshd,nthd->nsht", q, k) / jnp.sqrt(q.shape[-1])
    if bias is not None:
        steps = bias.cells[:, :, None] - bias.cells[:, None]
        both = bias.placed[:, :, None] & bias.placed[:, None]
        distance = jnp.where(both, jnp.linalg.norm(steps.astype(jnp.float32), axis=-1), 0.0)
        logits = logits - bias.slopes[:, None] * distance[:, :, None]
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


@pytest.mark.parametrize(
    ("size", "block"),
    [
        pytest.param((3, 8, 12, 6), 10**6, id="one block"),
        pytest.param((3, 8, 4, 6), 64 * 5, id="rows in blocks of 4 of 12"),
        pytest.param((2, 11, 3, 4), 30, id="queries in chunks that do not divide"),
        pytest.param((1, 5, 1, 4), 1, id="one query at a time"),
    ],
)
def test_bias_equals_plain_attention_with_gradients(size, block):
    n, s, h, d = size
    q, k, v, do = make(n, s, s, h, d)
    kv_len = jnp.asarray([s, max(1, s // 2), 1][:n])
    bias = make_bias(n, s, h)

    @jax.jit
    def both(q, k, v, do):
        results = []
        for attention in (
            lambda *qkv: attend(*qkv, kv_len, bias=bias, block=block),
            lambda *qkv: plain(*qkv, kv_len, bias),
        ):
            (o, lse), pullback = jax.vjp(attention, q, k, v)
            results.append((o, lse, pullback((do, jnp.zeros_like(lse)))))
        return results

    mine, theirs = both(q, k, v, do)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert relative_error(a, b) < 1e-5
    assert relative_error(plain(q, k, v, kv_len)[0], theirs[0]) > 1e-2


def test_log_sum_exp_is_constant_to_differentiation():
    q, k, v, _ = make(1, 4, 4, 2, 4)
    gradient = jax.grad(lambda q: jnp.sum(attend(q, k, v, jnp.asarray([4]))[1]))(q)
    np.testing.assert_array_equal(gradient, 0.0)


def test_bias_is_constant_to_differentiation():
    q, k, v, _ = make(1, 4, 4, 2, 4)
    bias = make_bias(1, 4, 2)

    @jax.jit
    def total(slopes):
        return jnp.sum(attend(q, k, v, jnp.asarray([4]), bias=bias._replace(slopes=slopes))[0])

    assert total(bias.slopes) != total(2 * bias.slopes)
    np.testing.assert_array_equal(jax.grad(total)(bias.slopes), 0.0)


@pytest.fixture(params=[True, False], ids=["mask in the product", "mask added"])
def mask(request, monkeypatch):
    """Keys are masked as on a CPU, and as everywhere else."""
    monkeypatch.setattr(xla, "_is_on_cpu", lambda: request.param)


@pytest.mark.usefixtures("mask")
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


@pytest.mark.usefixtures("mask")
@pytest.mark.parametrize("bias", [None, make_bias(1, 4, 2)], ids=["no bias", "bias"])
def test_no_keys_give_zeros_and_finite_gradients(bias):
    q, k, v, do = make(1, 4, 4, 2, 4)
    (o, lse), pullback = jax.vjp(lambda *qkv: attend(*qkv, jnp.asarray([0]), bias=bias), q, k, v)
    np.testing.assert_array_equal(o, 0.0)
    for gradient in pullback((do, jnp.zeros_like(lse))):
        np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("bias", [None, make_bias(2, 16, 2)], ids=["no bias", "bias"])
def test_bfloat16_keeps_the_log_sum_exp_in_float32(bias):
    q, k, v, _ = make(2, 16, 16, 2, 8, jnp.bfloat16)
    kv_len = jnp.asarray([16, 9])

    @jax.jit
    def run(q, k, v):
        (o, lse), pullback = jax.vjp(lambda *qkv: attend(*qkv, kv_len, bias=bias), q, k, v)
        return o, lse, pullback((o, lse))

    o, lse, gradients = run(q, k, v)
    expected, expected_lse = plain(*(x.astype(jnp.float32) for x in (q, k, v)), kv_len, bias)
    assert o.dtype == jnp.bfloat16
    assert lse.dtype == jnp.float32
    assert all(x.dtype == jnp.bfloat16 for x in gradients)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(o.astype(jnp.float32), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("bias", [None, make_bias(1, 6400, 16)], ids=["no bias", "bias"])
def test_long_rows_never_hold_all_logits(bias):
    """The third branch of Prov-GigaPath on 25 600 tiles: 6 400 rows, 16 heads, 2.6 GB of logits."""
    q, k, v, do = [jax.ShapeDtypeStruct((1, 6400, 16, 48), jnp.float32)] * 4

    def step(q, k, v, do):
        o, pullback = jax.vjp(lambda *qkv: attend(*qkv, jnp.asarray([6400]), bias=bias)[0], q, k, v)
        return o, pullback(do)

    memory = jax.jit(step).lower(q, k, v, do).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * 16 * 6400**2 * 4
