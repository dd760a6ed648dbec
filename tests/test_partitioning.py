"""The mesh, and where arrays lie. Many devices against one: test_mesh.py."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from configs import common, titan
from modaltune_jax import partitioning
from modaltune_jax.config import unpack
from modaltune_jax.models.heads import HeadsConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune
from modaltune_jax.partitioning import (
    MeshConfig,
    make_mesh,
    param_spec,
    process_shard,
    replicate,
    shard_batch,
    shard_opt_state,
    shard_params,
)
from modaltune_jax.types import Batch, InputError
from tests import tiny

EIGHT = AbstractMesh((2, 4, 1), partitioning.AXES)


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(data=-1))


def test_minus_one_takes_every_device(mesh):
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "sequence": 1}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        pytest.param(MeshConfig(data=0), "mesh.data=0", id="none"),
        pytest.param(MeshConfig(data=-2), "mesh.data=-2", id="a negative number that is not -1"),
        pytest.param(MeshConfig(data=10_000), "mesh.data=10000", id="too many"),
        pytest.param(MeshConfig(data=-1, fsdp=10_000), "mesh.fsdp=10000", id="too many for fsdp"),
        pytest.param(MeshConfig(data=-1, sequence=0), "mesh.sequence=0", id="none for sequence"),
    ],
)
def test_a_mesh_of_devices_that_are_not_there_is_refused(config, named):
    with pytest.raises(InputError, match=rf"{named}, but there are \d+ devices"):
        make_mesh(config)


def test_parameters_keep_paths_and_values(mesh):
    params = {"encoder": {0: {"kernel": np.arange(6.0).reshape(2, 3)}}, "fusion": {"bias": np.ones(3)}}
    placed = shard_params(params, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(params)
    for leaf, value in zip(jax.tree.leaves(placed), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.mesh == mesh
        assert leaf.is_fully_replicated
        np.testing.assert_array_equal(leaf, value)


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        pytest.param("a/fc1/kernel", (768, 3072), P(None, "fsdp"), id="the longest dimension"),
        pytest.param("a/fc1/kernel", (331, 256, 254), P(None, "fsdp"), id="the longest that fsdp divides"),
        pytest.param("a/fc1/kernel", (331, 257), P(), id="no dimension that fsdp divides"),
        pytest.param("a/fc1/kernel", (64, 64), P(), id="too small to gather"),
        pytest.param("a/norm/scale", (2**20,), P(), id="replicated by name"),
        pytest.param("encoder/proj", (768, 768), P("fsdp"), id="the first of equal dimensions"),
    ],
)
def test_rules_place_by_name_and_size(name, shape, spec):
    assert param_spec(name, shape, EIGHT) == spec


def test_a_parameter_without_a_rule_is_an_error(mesh):
    with pytest.raises(ValueError, match="no sharding rule for parameter 'a/novelty'"):
        shard_params({"a": {"novelty": np.ones(3)}}, mesh)


def _models():
    mean_pool = common.get_config()
    mean_pool.model.encoder = common.mean_pool(in_dim=12, width=16)
    for name, config in (
        ("longnet", common.get_config()),
        ("titan", titan.get_config()),
        ("mean", mean_pool),
    ):
        tiny.shrink(config, {"mean": "mean_pool"}.get(name, name))
        config.model.modalities = ("slides", "expression", "clinical")
        config.model.expression_agg = "cls"
        yield pytest.param(config, id=name)


@pytest.mark.parametrize("config", _models())
def test_rules_cover_every_parameter_of_every_model(config):
    heads = HeadsConfig(has_risk=True, num_bins=3, text_dim=8, terms=("cox", "distillation"))
    inputs = ModalInputs((np.arange(5), np.arange(7)), 4)
    config.compare = (("full", ("slides", "expression")),)
    config.pipeline.modalities = config.model.modalities
    model = unpack(config).model
    state = nnx.eval_shape(lambda: nnx.state(ModalTune(model, inputs, heads, rngs=nnx.Rngs(0))))
    for path, leaf in nnx.to_flat_state(state):
        param_spec("/".join(map(str, path)), leaf.shape, EIGHT)


def test_optimizer_state_lies_as_its_parameters(mesh):
    params = shard_params({"a": {"kernel": np.ones((8, 4), np.float32)}}, mesh)
    state = shard_opt_state(optax.adam(1e-3), params, mesh)
    assert jax.tree.structure(state) == jax.tree.structure(optax.adam(1e-3).init(params))
    assert state[0].mu["a"]["kernel"].sharding == params["a"]["kernel"].sharding
    assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(state))


def test_a_batch_is_spread_over_the_cases_axes(mesh):
    size = 2 * mesh.size
    batch = Batch(*(np.full((size, i + 1), i, np.float32) for i in range(len(Batch._fields))))
    placed = shard_batch(batch, mesh)
    for name, array in placed._asdict().items():
        assert array.sharding.spec == P(("data", "fsdp")), name
        np.testing.assert_array_equal(array, getattr(batch, name))


@pytest.mark.parametrize(
    ("num_tiles", "num_devices", "rows"),
    [
        pytest.param(127, 8, 128, id="a bucket: the class token makes it even"),
        pytest.param(128, 8, 256, id="full to the last row"),
        pytest.param(1, 2, 32, id="one tile"),
    ],
)
def test_split_bags_have_room_for_the_class_token(num_tiles, num_devices, rows):
    assert partitioning.split_tiles(num_tiles, num_devices) == rows


def test_replicate(mesh):
    (leaf,) = jax.tree.leaves(replicate({"a": np.arange(3)}, mesh))
    assert leaf.is_fully_replicated
    assert leaf.sharding.mesh == mesh


def test_one_process_loads_everything(mesh):
    assert process_shard(mesh) == (0, 1)
