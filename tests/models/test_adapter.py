"""The adapter's blocks against recorded numbers of the reference, and what masks must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.convert.modaltune import _adapter
from modaltune_jax.convert.rules import to_params
from modaltune_jax.models.adapter import AdapterConfig, Extractor, Injector, ModalSelfAttention
from tests.golden import load, relative_error, weights

CONFIG = AdapterConfig(
    stages=((0, 2), (2, 4), (4, 6)),
    attention_ratio=0.25,
    num_heads=4,
    ffn_ratio=0.25,
    num_extra_extractors=2,
    drop_path=0.1,
)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden():
    return {name: jnp.asarray(value) for name, value in load("adapter_blocks").items()}


def filled(kind: type, golden: dict, name: str):
    block = kind(32, CONFIG, rngs=nnx.Rngs(0))
    tensors = {f"block.{key}": np.asarray(value) for key, value in weights(golden, f"w/{name}/").items()}
    params = to_params(tensors, {"block": nnx.to_pure_dict(nnx.state(block))}, _adapter("block", "block"))
    nnx.update(block, jax.tree.map(jnp.asarray, params["block"]))
    return block


def all_present(x) -> jax.Array:
    return jnp.ones(x.shape[:2], bool)


def test_injector(golden):
    block = filled(Injector, golden, "injector")
    out = block(golden["x"], golden["c"], all_present(golden["c"]), golden["pos"])
    assert relative_error(out, golden["out/injector"]) < TOLERANCE


def test_extractor(golden):
    block = filled(Extractor, golden, "extractor")
    out = block(golden["c"], golden["x"], all_present(golden["x"]), golden["pos"])
    assert relative_error(out, golden["out/extractor"]) < TOLERANCE


def test_self_attention(golden):
    block = filled(ModalSelfAttention, golden, "selfattn")
    out = block(golden["c"], all_present(golden["c"]), golden["pos"])
    assert relative_error(out, golden["out/selfattn"]) < TOLERANCE


def test_masked_tiles_are_as_if_absent(golden):
    block = filled(Extractor, golden, "extractor")
    mask = jnp.arange(30) < jnp.array([[17], [30]])
    garbage = jnp.where(mask[..., None], golden["x"], 1e4)
    out = block(golden["c"], garbage, mask, golden["pos"])
    alone = block(golden["c"][:1], golden["x"][:1, :17], jnp.ones((1, 17), bool), golden["pos"])
    np.testing.assert_allclose(out[:1], alone, rtol=1e-5, atol=1e-5)


def test_without_tiles_the_extractor_only_doubles_and_feeds_forward(golden):
    block = filled(Extractor, golden, "extractor")
    absent = jnp.zeros((2, 30), bool)

    def run(x):
        return block(golden["c"], x, absent, golden["pos"])

    doubled = 2 * golden["c"]
    np.testing.assert_allclose(run(golden["x"]), doubled + block.ffn(doubled), rtol=1e-5)
    gradient = jax.grad(lambda x: run(x).sum())(golden["x"])
    np.testing.assert_array_equal(gradient, 0.0)


def test_injector_starts_as_the_identity(golden):
    block = Injector(32, CONFIG, rngs=nnx.Rngs(0))
    out = block(golden["x"], golden["c"], all_present(golden["c"]), golden["pos"])
    np.testing.assert_array_equal(out, golden["x"])
