"""Where arrays live: the one place that knows devices."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modaltune_jax.types import Batch, InputError

RULES: tuple[tuple[str, P], ...] = (
    # The whole model is some hundred megabytes: replicating it is cheaper than gathering it.
    (r".*", P()),
)
"""`(pattern, spec)`: the first pattern found in a parameter's path gives its sharding."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The device mesh.

    Attributes:
      data: devices along the batch axis; -1 takes all there are.
    """

    data: int


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh over the devices of all processes.

    Raises:
      InputError: more devices are asked for than there are.
    """
    num_devices = jax.device_count()
    size = num_devices if config.data == -1 else config.data
    if not 1 <= size <= num_devices:
        raise InputError(f"mesh.data={config.data}, but there are {num_devices} devices; -1 takes them all")
    devices = np.array(jax.devices()[:size])
    return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def shard_params(params: Any, mesh: Mesh) -> Any:
    """Places a nested dict of parameters on the mesh by `RULES`.

    Raises:
      ValueError: a parameter that no pattern covers.
    """

    def place(path: tuple, value: Any) -> jax.Array:
        name = "/".join(str(part) for part in path)
        spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), None)
        if spec is None:
            raise ValueError(f"no sharding rule for parameter {name!r}")
        return jax.device_put(value, NamedSharding(mesh, spec))

    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({path: place(path, value) for path, value in flat.items()})


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places every leaf whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Spreads a process's rows of a batch over the mesh's data axis."""
    sharding = NamedSharding(mesh, P("data"))
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def process_shard() -> tuple[int, int]:
    """Which part of each global batch this process loads: (index, count)."""
    return jax.process_index(), jax.process_count()
