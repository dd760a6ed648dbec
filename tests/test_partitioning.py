"""The mesh, and where arrays lie. Many devices against one: test_train.py."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from modaltune_jax import partitioning
from modaltune_jax.partitioning import (
    MeshConfig,
    make_mesh,
    process_shard,
    replicate,
    shard_batch,
    shard_params,
)
from modaltune_jax.types import Batch, InputError


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(data=-1))


def test_minus_one_takes_every_device(mesh):
    assert dict(mesh.shape) == {"data": jax.device_count()}


@pytest.mark.parametrize("data", [0, -2, 10_000])
def test_a_mesh_of_devices_that_are_not_there_is_refused(data):
    with pytest.raises(InputError, match=rf"mesh.data={data}, but there are \d+ devices"):
        make_mesh(MeshConfig(data=data))


def test_parameters_keep_paths_and_values(mesh):
    params = {"encoder": {0: {"kernel": np.arange(6.0).reshape(2, 3)}}, "fusion": {"bias": np.ones(3)}}
    placed = shard_params(params, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(params)
    for leaf, value in zip(jax.tree.leaves(placed), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.mesh == mesh
        assert leaf.is_fully_replicated
        np.testing.assert_array_equal(leaf, value)


def test_rules_choose_by_path_and_cover_everything(mesh, monkeypatch):
    monkeypatch.setattr(partitioning, "RULES", (("kernel$", P("data")), ("bias$", P())))
    size = mesh.shape["data"]
    placed = shard_params({"a": {"kernel": np.ones((2 * size, 3)), "bias": np.ones(3)}}, mesh)
    assert placed["a"]["kernel"].sharding.spec == P("data")
    assert placed["a"]["bias"].sharding.spec == P()
    with pytest.raises(ValueError, match="no sharding rule for parameter 'a/scale'"):
        shard_params({"a": {"scale": np.ones(3)}}, mesh)


def test_a_batch_is_spread_over_the_data_axis(mesh):
    size = 2 * mesh.shape["data"]
    batch = Batch(*(np.full((size, i + 1), i, np.float32) for i in range(len(Batch._fields))))
    placed = shard_batch(batch, mesh)
    for name, array in placed._asdict().items():
        assert array.sharding.spec == P("data"), name
        np.testing.assert_array_equal(array, getattr(batch, name))


def test_replicate(mesh):
    (leaf,) = jax.tree.leaves(replicate({"a": np.arange(3)}, mesh))
    assert leaf.is_fully_replicated
    assert leaf.sharding.mesh == mesh


def test_one_process_loads_everything():
    assert process_shard() == (0, 1)
