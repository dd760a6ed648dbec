"""Every implementation of attention against the one in plain JAX."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from modaltune_jax.models.encoders.alibi import GridBias
from modaltune_jax.models.encoders.attention import SAVED, attend, cudnn, dispatch, pallas, xla
from modaltune_jax.types import InputError

TOLERANCES = {jnp.float32: 1e-5, jnp.bfloat16: 2e-2}


def make(n, s, t, h, d, dtype):
    """q, k, v and a cotangent of the output."""
    rng = np.random.default_rng(0)
    shapes = [(n, s, h, d), (n, t, h, d), (n, t, h, d), (n, s, h, d)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def run(attention, q, k, v, do):
    """Output, log-sum-exp and the three gradients."""

    @jax.jit
    def both(q, k, v, do):
        (o, lse), pullback = jax.vjp(attention, q, k, v)
        # A cotangent of the log-sum-exp, which must not count.
        return o, lse, *pullback((do, jnp.ones_like(lse)))

    return both(q, k, v, do)


def assert_close(ours, theirs, dtype):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


KERNEL_CASES = [
    pytest.param((3, 8, 8, 2, 48), (8, 0, 1), jnp.float32, id="less than a block; full, none, one"),
    pytest.param((2, 130, 700, 1, 48), (600, 300), jnp.float32, id="two blocks of keys, no multiples"),
    pytest.param((1, 1100, 520, 1, 64), (513,), jnp.float32, id="two blocks of queries, last key alone"),
    pytest.param((2, 130, 130, 2, 48), (130, 77), jnp.bfloat16, id="bfloat16, width 48"),
    pytest.param((1, 260, 520, 1, 64), (515,), jnp.bfloat16, id="bfloat16, width 64"),
]


@pytest.mark.parametrize(("size", "kv_len", "dtype"), KERNEL_CASES)
def test_pallas_equals_xla_with_gradients(size, kv_len, dtype):
    """The TPU's kernels, interpreted."""
    arrays = make(*size, dtype)
    kv_len = jnp.asarray(kv_len)
    ours = run(functools.partial(pallas.attend, kv_len=kv_len, interpret=True), *arrays)
    assert_close(ours, run(functools.partial(xla.attend, kv_len=kv_len), *arrays), dtype)
    assert ours[1].dtype == jnp.float32


def test_pallas_does_not_see_keys_beyond_the_length():
    q, k, v, do = make(2, 8, 600, 1, 16, jnp.float32)
    kv_len = jnp.asarray([3, 514])
    beyond = (jnp.arange(600) >= kv_len[:, None])[..., None, None]
    attention = functools.partial(pallas.attend, kv_len=kv_len, interpret=True)
    first = run(attention, q, k, v, do)
    second = run(attention, q, jnp.where(beyond, 50.0, k), jnp.where(beyond, -70.0, v), do)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for gradient in first[3:]:
        assert not np.any(np.where(beyond, gradient, 0.0))


@pytest.mark.parametrize("size", [1, 127, 128, 129, 512, 513, 1024, 1025, 2561, 6400, 25_601])
@pytest.mark.parametrize("largest", [512, 1024])
def test_blocks_fill_and_keep_their_size_once_filled(size, largest):
    block = pallas._block(size, largest)
    filled = -(-size // block) * block
    assert block % 128 == 0
    assert block <= largest
    assert pallas._block(filled, largest) == block
    assert filled - size < 128 * -(-size // largest)


def emulated_cudnn(name, qkv, lengths, residuals=(), **settings):
    """What cuDNN is documented to compute, with noise wherever it promises nothing."""
    q, k, v = (x.astype(jnp.float32) for x in qkv)
    q_len, kv_len = lengths
    assert q.shape[1] % 2 == 0
    assert k.shape[1] % 2 == 0
    real = (jnp.arange(q.shape[1]) < q_len[:, None])[..., None]
    if name == cudnn._FORWARD:
        o, lse = xla.attend(q, k, v, kv_len)
        lse = jnp.where(real, lse, 7.0)
        return jnp.where(real[..., None], o, 7.0).astype(qkv[0].dtype), jnp.swapaxes(lse, 1, 2)
    lse, o, do = residuals
    assert lse.dtype == jnp.float32
    do, o = (jnp.where(real[..., None], x, 0).astype(jnp.float32) for x in (do, o))
    seen = jnp.arange(k.shape[1]) < kv_len[:, None]
    scale = q.shape[-1] ** -0.5
    logits = jnp.einsum("nshd,nthd->nhst", q, k) * scale
    weights = jnp.where(seen[:, None, None], jnp.exp(logits - lse[..., None]), 0.0)
    delta = jnp.swapaxes(jnp.sum(do * o, axis=-1), 1, 2)[..., None]
    dlogits = weights * (jnp.einsum("nshd,nthd->nhst", do, v) - delta) * scale
    dq, dk = jnp.einsum("nhst,nthd->nshd", dlogits, k), jnp.einsum("nhst,nshd->nthd", dlogits, q)
    dv = jnp.einsum("nhst,nshd->nthd", weights, do)
    seen = seen[..., None, None]
    noisy = (jnp.where(real[..., None], dq, 7.0), jnp.where(seen, dk, 7.0), jnp.where(seen, dv, 7.0))
    return tuple(x.astype(qkv[0].dtype) for x in noisy)


@pytest.mark.parametrize(
    ("size", "kv_len"),
    [
        pytest.param((3, 7, 7, 2, 48), (7, 0, 1), id="odd; full, none, one"),
        pytest.param((2, 6, 9, 1, 64), (9, 4), id="even queries, odd keys"),
    ],
)
def test_cudnn_hides_what_the_kernel_does_with_padding(monkeypatch, size, kv_len):
    """Not the kernels, which need a GPU: what is done around them."""
    monkeypatch.setattr(cudnn, "_bind", emulated_cudnn)
    arrays = make(*size, jnp.bfloat16)
    kv_len = jnp.asarray(kv_len)
    ours = run(functools.partial(cudnn.attend, kv_len=kv_len), *arrays)
    assert_close(ours, run(functools.partial(xla.attend, kv_len=kv_len), *arrays), jnp.bfloat16)


@pytest.mark.parametrize("length", [1024, 1025])
def test_cudnn_lowers_for_a_gpu_with_a_log_sum_exp_in_float32(length):
    x = jax.ShapeDtypeStruct((2, length, 16, 48), jnp.bfloat16)

    def step(q, k, v, kv_len, do):
        (o, lse), pullback = jax.vjp(lambda *qkv: cudnn.attend(*qkv, kv_len), q, k, v)
        return o, lse, pullback((do, lse))

    arguments = (x, x, x, jax.ShapeDtypeStruct((2,), jnp.int32), x)
    text = jax.jit(step).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if "custom_call @__cudnn" in line]
    assert [line.split("@__cudnn$")[1].split("(")[0] for line in calls] == [
        "fmhaSoftmax",
        "fmhaSoftmaxBackward",
    ]
    assert f"tensor<2x16x{length + length % 2}xf32>" in calls[0]
    assert all("PADDING" in line for line in calls)
    assert not cudnn.why_not(jnp.bfloat16, 48)


@pytest.mark.parametrize("implementation", ["xla", "pallas", "cudnn"])
def test_zero_keys_are_rows_of_zeros(monkeypatch, implementation):
    monkeypatch.setattr(cudnn, "_bind", emulated_cudnn)
    dtype = jnp.bfloat16 if implementation == "cudnn" else jnp.float32
    q, k, v, do = make(2, 6, 8, 2, 16, dtype)
    # Where all keys are seen, and where none is.
    kv_len, filled_len = jnp.asarray([8, 0]), jnp.asarray([13, 5])
    attention = {
        "xla": xla.attend,
        "pallas": functools.partial(pallas.attend, interpret=True),
        "cudnn": cudnn.attend,
    }[implementation]
    ours = run(functools.partial(attention, kv_len=kv_len, zero_keys=5), q, k, v, do)
    k, v = (jnp.where(kv_len[:, None, None, None] > 0, x, 0) for x in (k, v))
    filled_k, filled_v = (jnp.pad(x, ((0, 0), (0, 5), (0, 0), (0, 0))) for x in (k, v))
    theirs = run(functools.partial(xla.attend, kv_len=filled_len), q, filled_k, filled_v, do)
    o, lse, dq, dk, dv = theirs
    hidden = kv_len[:, None, None, None] == 0
    dk, dv = (jnp.where(hidden, 0, x[:, :8]) for x in (dk, dv))
    assert_close(ours, (o, lse, dq, dk, dv), dtype)


def test_remat_can_keep_what_the_backward_pass_needs():
    """With output and log-sum-exp kept, the forward kernel does not run again."""
    x = jax.ShapeDtypeStruct((1, 8, 1, 16), jnp.bfloat16)
    attention = lambda *qkv: jnp.sum(cudnn.attend(*qkv, jnp.asarray([8]))[0])  # noqa: E731

    def num_kernels(policy):
        gradient = jax.value_and_grad(jax.checkpoint(attention, policy=policy), argnums=(0, 1, 2))
        lowered = jax.jit(gradient).trace(x, x, x).lower(lowering_platforms=("cuda",))
        return lowered.as_text().count("custom_call @__cudnn")

    policies = jax.checkpoint_policies
    assert num_kernels(policies.nothing_saveable) == 3
    assert num_kernels(policies.save_only_these_names(SAVED)) == 2


@pytest.mark.parametrize(
    ("dtype", "width"),
    [pytest.param(jnp.bfloat16, 48, id="bfloat16"), pytest.param(jnp.float32, 64, id="float32")],
)
def test_pallas_lowers_for_a_tpu(dtype, width):
    x = jax.ShapeDtypeStruct((2, 1025, 4, width), dtype)

    def step(q, k, v, kv_len, do):
        (o, lse), pullback = jax.vjp(lambda *qkv: pallas.attend(*qkv, kv_len), q, k, v)
        return o, lse, pullback((do, lse))

    arguments = (x, x, x, jax.ShapeDtypeStruct((2,), jnp.int32), x)
    text = jax.jit(step).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    names = re.findall(r'kernel_name = "(\w+)"', text)
    assert names == ["flash_attention_forward", "flash_attention_backward"]


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
@pytest.mark.parametrize("kv_len", [(1025, 0, 1), (1024, 513, 77)])
def test_cudnn_equals_xla_on_a_gpu(kv_len):
    arrays = make(3, 1025, 1025, 4, 48, jnp.bfloat16)
    kv_len = jnp.asarray(kv_len)
    ours = run(functools.partial(cudnn.attend, kv_len=kv_len), *arrays)
    assert_close(ours, run(functools.partial(xla.attend, kv_len=kv_len), *arrays), jnp.bfloat16)


def test_cudnn_says_when_jax_has_changed(monkeypatch):
    monkeypatch.setattr(cudnn.fused, "_dot_product_attention_bwd_impl", lambda query, key: None)
    assert not cudnn._is_as_expected("_dot_product_attention_bwd")
    monkeypatch.delattr(cudnn.fused, "_dot_product_attention_fwd_p_wrapper")
    assert not cudnn._is_as_expected("_dot_product_attention_fwd")
    monkeypatch.setattr(cudnn, "_IS_KNOWN", False)
    assert "has changed" in cudnn.why_not(jnp.bfloat16, 48)


def trace(platform, *qkv, **settings):
    """The shapes of `attend`, traced for a platform that need not be here."""
    device = AbstractDevice(device_kind="some", num_cores=1, platform=platform)
    mesh = AbstractMesh((1,), ("data",), abstract_device=device)
    attention = functools.partial(attend, **settings)
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.eval_shape(attention, *qkv, jax.ShapeDtypeStruct((1,), jnp.int32))


CHOICES = [
    pytest.param("auto", "cpu", 256, jnp.bfloat16, "xla", id="CPU"),
    pytest.param("auto", "tpu", 256, jnp.bfloat16, "pallas", id="TPU"),
    pytest.param("auto", "tpu", 256, jnp.float32, "pallas", id="TPU, float32"),
    pytest.param("auto", "tpu", 127, jnp.bfloat16, "xla", id="TPU, few queries"),
    pytest.param("auto", "cuda", 256, jnp.bfloat16, "xla", id="GPU: cuDNN must be asked for"),
    pytest.param("cudnn", "cuda", 256, jnp.bfloat16, "cudnn", id="cuDNN"),
    pytest.param("pallas", "tpu", 8, jnp.float32, "pallas", id="Pallas"),
    pytest.param("xla", "tpu", 256, jnp.bfloat16, "xla", id="XLA on a TPU"),
]


@pytest.mark.parametrize(("implementation", "platform", "length", "dtype", "expected"), CHOICES)
def test_who_computes(monkeypatch, implementation, platform, length, dtype, expected):
    called = []
    for module in (xla, cudnn, pallas):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(
            module, "attend", lambda q, *_, name=name, **__: called.append(name) or (q, q[..., 0])
        )
    q, k, v, _ = make(1, length, 8, 1, 16, dtype)
    trace(platform, q, k, v, implementation=implementation)
    assert called == [expected]


def test_a_bias_is_for_xla():
    q, k, v, _ = make(1, 128, 128, 1, 16, jnp.bfloat16)
    bias = GridBias(jnp.zeros((1, 128, 2), jnp.int32), jnp.ones((1, 128), bool), jnp.ones(1))
    assert trace("tpu", q, k, v, bias=bias)[0].shape == q.shape
    with pytest.raises(InputError, match="'pallas' takes no bias"):
        trace("tpu", q, k, v, bias=bias, implementation="pallas")


@pytest.mark.parametrize(
    ("implementation", "platform", "dtype", "width", "says"),
    [
        pytest.param("flash", "cpu", jnp.float32, 16, "does not exist", id="unknown"),
        pytest.param(
            "pallas", "cpu", jnp.float32, 16, "runs on a TPU, but this is .* a CPU", id="Pallas on CPU"
        ),
        pytest.param(
            "pallas", "cuda", jnp.float32, 16, "runs on a TPU, but this is .* a GPU", id="Pallas on GPU"
        ),
        pytest.param(
            "cudnn", "cpu", jnp.bfloat16, 16, "runs on a GPU, but this is .* a CPU", id="cuDNN on CPU"
        ),
        pytest.param("cudnn", "cuda", jnp.float32, 16, "takes bfloat16 and float16", id="cuDNN, float32"),
        pytest.param("cudnn", "cuda", jnp.bfloat16, 12, "a head is 12 wide", id="cuDNN, width 12"),
        pytest.param("cudnn", "cuda", jnp.bfloat16, 256, "a head is 256 wide", id="cuDNN, width 256"),
    ],
)
def test_what_cannot_be_done_is_said(implementation, platform, dtype, width, says):
    q, k, v, _ = make(1, 8, 8, 1, width, dtype)
    with pytest.raises(InputError, match=says):
        trace(platform, q, k, v, implementation=implementation)


def test_without_a_mesh_the_platform_is_this_process():
    assert dispatch.target_platform() == jax.default_backend()
