import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.convert import gigapath, rules
from modaltune_jax.models.encoders.longnet import LongNet, LongNetConfig
from modaltune_jax.types import InputError
from tests.golden import DATA, load, weights

KEYS = DATA / "checkpoint_keys.json"

SMALL = LongNetConfig(
    in_dim=24,
    width=32,
    depth=6,
    num_heads=16,
    ffn_dim=128,
    segment_lengths=(8, 16),
    dilated_ratios=(1, 2),
)


def abstract(config):
    model = nnx.eval_shape(lambda: LongNet(config, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.fixture
def recorded():
    return weights(load("slide_encoder"))


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_gigapath_round_trip_is_bit_identical(recorded):
    params = gigapath.to_params(recorded, abstract(SMALL))
    same(gigapath.to_tensors(params), recorded)
    again = gigapath.to_params(gigapath.to_tensors(params), abstract(SMALL))
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_kernels_are_transposed_and_norms_are_not(recorded):
    params = gigapath.to_params(recorded, abstract(SMALL))
    layer = params["encoder"]["layers"][3]
    fc1 = recorded["encoder.layers.3.ffn.fc1.weight"]
    np.testing.assert_array_equal(layer["ffn"]["fc1"]["kernel"], fc1.T)
    scale = recorded["encoder.layers.3.self_attn.inner_attn_ln.weight"]
    np.testing.assert_array_equal(layer["self_attn"]["inner_attn_ln"]["scale"], scale)


def test_common_prefix_is_dropped(recorded):
    prefixed = {f"module.slide.{name}": tensor for name, tensor in recorded.items()}
    same(gigapath.to_tensors(gigapath.to_params(prefixed, abstract(SMALL))), recorded)


def test_half_precision_weights_take_the_dtype_of_the_parameters(recorded):
    half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in recorded.items()}
    params = gigapath.to_params(half, abstract(SMALL))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(params["norm"]["scale"], half["norm.weight"].astype(np.float32))


def test_every_public_name_and_shape_is_consumed():
    entry = next(v for k, v in json.loads(KEYS.read_text()).items() if k.startswith("prov_gigapath"))
    assert len(entry) == 247
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in entry.items()}
    params = gigapath.to_params(zeros, abstract(LongNetConfig.prov_gigapath()))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(np.prod(s) for s in entry.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t: t.pop("norm.bias"), r"nothing for norm\.bias \(32,\)", id="missing"),
        pytest.param(
            lambda t: t.update(extra=np.zeros(2)), r"unexpected tensor 'extra' \(2,\)", id="unexpected"
        ),
        pytest.param(
            lambda t: t.update({"patch_embed.proj.weight": np.zeros((32, 25), np.float32)}),
            r"patch_embed\.proj\.kernel shape \(25, 32\), not \(24, 32\)",
            id="shape",
        ),
        pytest.param(lambda t: t.clear(), "and [0-9]+ more", id="nothing there: only the first are listed"),
    ],
)
def test_what_does_not_fit_is_named(recorded, change, message):
    change(recorded)
    with pytest.raises(InputError, match=message):
        gigapath.to_params(recorded, abstract(SMALL))


def stack(tensors):
    names = [f"nets.{i}.weight" for i in range(3)]
    return np.stack([tensors[name].T for name in names]), names


def unstack(array):
    return {f"nets.{i}.weight": matrix.T for i, matrix in enumerate(array)}


GATHERING = (
    rules.Gather("nets.kernel", stack, unstack),
    rules.Rename(
        "conv.{i}.weight", "mix.{i}.kernel", rules.Transform(lambda x: x[..., 0].T, lambda x: x.T[..., None])
    ),
    rules.Rename("gamma", "gamma"),
)


@pytest.fixture
def gathered():
    """Tensors and abstract parameters for the table above."""
    rng = np.random.default_rng(0)
    tensors = {f"nets.{i}.weight": rng.normal(size=(2, 4)).astype(np.float32) for i in range(3)}
    tensors["conv.0.weight"] = rng.normal(size=(5, 6, 1)).astype(np.float32)
    tensors["gamma"] = rng.normal(size=7).astype(np.float32)
    shapes = {"nets": {"kernel": (3, 4, 2)}, "mix": {0: {"kernel": (6, 5)}}, "gamma": (7,)}
    to_struct = lambda shape: jax.ShapeDtypeStruct(shape, np.float32)  # noqa: E731
    return tensors, jax.tree.map(to_struct, shapes, is_leaf=lambda x: isinstance(x, tuple))


def test_gather_and_reshape_rules_go_both_ways(gathered):
    tensors, shapes = gathered
    params = rules.to_params(tensors, shapes, GATHERING)
    np.testing.assert_array_equal(params["nets"]["kernel"][1], tensors["nets.1.weight"].T)
    np.testing.assert_array_equal(params["mix"][0]["kernel"], tensors["conv.0.weight"][..., 0].T)
    same(rules.to_tensors(params, GATHERING), tensors)


def test_gather_names_its_missing_tensor(gathered):
    tensors, shapes = gathered
    del tensors["nets.2.weight"]
    with pytest.raises(InputError, match=r"no tensor 'nets\.2\.weight' for nets\.kernel"):
        rules.to_params(tensors, shapes, GATHERING)


def test_a_parameter_is_filled_once():
    table = (rules.Rename("old", "x"), rules.Rename("{any}", "{any}"))
    tensors = {"old": np.zeros(2, np.float32), "x": np.ones(2, np.float32)}
    with pytest.raises(InputError, match="'x' fills x a second time"):
        rules.to_params(tensors, {"x": np.zeros(2, np.float32)}, table)


def test_parameters_without_a_rule_or_with_one_name_are_refused():
    params = {"x": np.zeros(2), "y": np.zeros(3)}
    with pytest.raises(InputError, match=r"no rule for y \(3,\)"):
        rules.to_tensors(params, (rules.Rename("x", "x"),))
    with pytest.raises(InputError, match="y gives 'z' a second time"):
        rules.to_tensors(params, (rules.Rename("z", "x"), rules.Rename("z", "y")))


def test_a_tensor_that_fits_two_parameters_is_refused():
    table = (rules.Rename("{a}.weight", "{a}.kernel"), rules.Rename("{a}.weight", "{a}.scale"))
    one = np.ones(2, np.float32)
    with pytest.raises(
        rules.ConversionError, match=r"'x.weight' fits several parameters: x\.kernel, x\.scale"
    ):
        rules.to_params({"x.weight": one}, {"x": {"kernel": one, "scale": one}}, table)
    ambiguous = (rules.Rename("a{x}", "{x}"), rules.Rename("b{x}", "{x}"))
    with pytest.raises(rules.ConversionError, match="x fits several tensors: ax, bx"):
        rules.to_tensors({"x": one}, ambiguous)


def test_every_problem_is_listed():
    shapes = {f"x{i}": np.zeros(1, np.float32) for i in range(30)}
    with pytest.raises(rules.ConversionError, match="; and 10 more") as caught:
        rules.to_params({}, shapes, (rules.Rename("{any}", "{any}"),))
    assert set(caught.value.problems) == {f"nothing for x{i} (1,)" for i in range(30)}


def test_known_extras_are_left_out_and_named():
    table = (rules.Rename("x", "x"), rules.Skip("head.{any}", "of the pretraining"))
    tensors = {"x": np.ones(2, np.float32), "head.0": np.ones(3), "head.1": np.ones(3)}
    params = rules.to_params(tensors, {"x": np.zeros(2, np.float32)}, table)
    np.testing.assert_array_equal(params["x"], 1)
    assert rules.skipped(tensors, table) == dict.fromkeys(["head.0", "head.1"], "of the pretraining")


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        pytest.param(np.float16, np.float32, True, id="half to single"),
        pytest.param(ml_dtypes.bfloat16, np.float32, True, id="bfloat16 to single"),
        pytest.param(np.float64, np.float32, False, id="double loses bits"),
        pytest.param(np.float16, ml_dtypes.bfloat16, False, id="half loses bits in bfloat16"),
        pytest.param(ml_dtypes.bfloat16, np.float16, False, id="bfloat16 loses range in half"),
        pytest.param(np.int64, np.float32, False, id="integers are no weights"),
        pytest.param(np.int32, np.int32, True, id="the same"),
    ],
)
def test_only_exact_casts_are_made(source, target, fits):
    tensors, table = {"x": np.ones(2, source)}, (rules.Rename("x", "x"),)
    if fits:
        assert rules.to_params(tensors, {"x": np.zeros(2, target)}, table)["x"].dtype == target
        return
    with pytest.raises(rules.ConversionError, match=rf"'x' is {np.dtype(source)}, which does not fit into"):
        rules.to_params(tensors, {"x": np.zeros(2, target)}, table)


def test_prefixes_that_make_two_names_one_are_refused():
    one = np.ones(1)
    with pytest.raises(rules.ConversionError, match=r"'m\.x' and 'x' are both x"):
        rules.strip_prefix({"m.cls_token": one, "m.x": one, "x": one}, "cls_token")
    stripped = rules.strip_prefix(
        {"m.cls_token": np.ones(1), "m.x": np.ones(2), "y": np.ones(3)}, "cls_token"
    )
    assert stripped.names == {"cls_token": "m.cls_token", "x": "m.x", "y": "y"}
