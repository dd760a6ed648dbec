"""Where arrays live: the one place that knows devices.

The mesh has three axes. Cases are spread over `data` and `fsdp`, the tiles of each case over `sequence`.
Large parameters are cut over `fsdp`, and gathered where they are used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modaltune_jax.types import Batch, InputError

AXES = ("data", "fsdp", "sequence")
CASES = ("data", "fsdp")
"""Mesh axes of the axis b: each device holds some cases."""
SEQUENCE = "sequence"
"""Mesh axis of the axis l: each device holds some tiles of its cases."""

WHOLE_CASES = P(AXES)
"""Cases where `sequence` is one device. It is named all the same: gradients are summed over axes left out."""

TILES_MULTIPLE = 16
"""Tiles a device are a multiple of this where a bag is split: the largest stride of Prov-GigaPath."""

RULES: tuple[tuple[str, str], ...] = (
    # Small whatever the sizes of the model.
    (r"(^|/)(bias\d?|scale|gamma|in_proj_bias|cls_token|temperature)$|(^|/)log_variance/", "replicate"),
    (r"(^|/)(kernel\d?|\w+_weight|proj|positions|query|cls)$", "shard"),
)
"""`(pattern, "shard" | "replicate")`: the first pattern found in a path decides, of frozen ones too.

"shard" cuts the longest dimension that the axis `fsdp` divides, of arrays with `MIN_SHARDED` values or more;
smaller ones are cheaper to hold everywhere than to gather.
"""

MIN_SHARDED = 2**14
"""Values from which on a parameter is cut: 64 KiB of float32."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The device mesh.

    Attributes:
      data: devices along the batch axis; -1 takes what `fsdp` and `sequence` leave.
      fsdp: devices that share each large parameter; they hold cases of their own, as those of `data`.
      sequence: devices that share the tiles of each case, for bags that one device cannot hold.
    """

    data: int
    fsdp: int = 1
    sequence: int = 1


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh over the devices of all processes.

    Raises:
      InputError: more devices are asked for than there are.
    """
    num_devices = jax.device_count()
    for axis in ("fsdp", "sequence"):
        size = getattr(config, axis)
        if not 1 <= size <= num_devices:
            raise InputError(f"mesh.{axis}={size}, but there are {num_devices} devices; 1 leaves it out")
    others = config.fsdp * config.sequence
    data = num_devices // others if config.data == -1 else config.data
    if data < 1 or data * others > num_devices:
        raise InputError(
            f"mesh.data={config.data}, but there are {num_devices} devices"
            f"{f' for fsdp x sequence = {others}' if others > 1 else ''}; -1 takes them all"
        )
    shape = (data, config.fsdp, config.sequence)
    devices = jax.devices()[: math.prod(shape)]
    if len({device.process_index for device in devices}) < jax.process_count():
        raise InputError(
            f"the mesh takes {len(devices)} of {num_devices} devices, which leaves a process without any: "
            "let mesh.data, fsdp and sequence multiply to the number of devices"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def param_spec(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """How `RULES` place a parameter.

    Raises:
      ValueError: no pattern covers it.
    """
    decision = next((decision for pattern, decision in RULES if re.search(pattern, name)), None)
    if decision is None:
        raise ValueError(f"no sharding rule for parameter {name!r}: add a pattern to partitioning.RULES")
    size = mesh.shape["fsdp"]
    if decision == "replicate" or size == 1 or math.prod(shape) < MIN_SHARDED:
        return P()
    longest_first = sorted(range(len(shape)), key=lambda axis: -shape[axis])
    axis = next((axis for axis in longest_first if shape[axis] % size == 0), None)
    return P() if axis is None else P(*(None,) * axis, "fsdp")


def shard_params(params: Any, mesh: Mesh) -> Any:
    """Places a nested dict of parameters on the mesh by `RULES`.

    Raises:
      ValueError: a parameter that no pattern covers.
    """

    def place(path: tuple, value: Any) -> jax.Array:
        spec = param_spec("/".join(map(str, path)), np.shape(value), mesh)
        return _put(value, NamedSharding(mesh, spec))

    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({path: place(path, value) for path, value in flat.items()})


def gather_params(params: Any, mesh: Mesh) -> Any:
    """Inside a step: every parameter whole, so that XLA moves weights between devices and not activations.

    Gradients come back whole too, summed over all devices; the optimizer takes each device's part.
    """
    if mesh.shape["fsdp"] == 1:
        return params
    return jax.lax.with_sharding_constraint(params, NamedSharding(mesh, P()))


def shard_opt_state(optimizer: optax.GradientTransformation, params: Any, mesh: Mesh) -> optax.OptState:
    """A new optimizer state for `params` on the mesh: moments lie as their parameters."""
    return optax.tree_map_params(
        optimizer,
        lambda moment, param: _put(moment, param.sharding),
        optimizer.init(params),
        params,
        transform_non_params=lambda leaf: _put(leaf, NamedSharding(mesh, P())),
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places every leaf whole on every device."""
    return jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, P())), tree)


def _put(value: Any, sharding: NamedSharding) -> jax.Array:
    """`value`, the same in every process, on the devices of all of them."""
    if isinstance(value, jax.Array) and value.sharding == sharding:
        return value
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Spreads a process's rows of a batch over the cases' axes of the mesh, and tiles over `sequence`.

    Where bags are split, rows of padding follow the last tile: one at least, whose place the class token
    takes in the sequence, and as many as leave every device a multiple of `TILES_MULTIPLE`.
    """
    num_sequence = mesh.shape[SEQUENCE]
    specs = Batch(*(P(CASES) for _ in batch))
    if num_sequence > 1:
        num_tiles = batch.features.shape[1]
        fill = split_tiles(num_tiles, num_sequence) - num_tiles
        padded = [
            np.pad(tiles, ((0, 0), (0, fill), *((0, 0),) * (tiles.ndim - 2)))
            for tiles in (batch.features, batch.cells)
        ]
        batch = batch._replace(features=padded[0], cells=padded[1])
        specs = specs._replace(features=P(CASES, SEQUENCE), cells=P(CASES, SEQUENCE))
    groups = _case_groups(mesh)[jax.process_index()]
    place = functools.partial(_place_rows, mesh=mesh, groups=groups)
    return jax.tree.map(lambda rows, spec: place(rows, NamedSharding(mesh, spec)), batch, specs)


def split_tiles(num_tiles: int, num_sequence: int) -> int:
    """Rows that tiles are padded to where so many devices share them, see `shard_batch`."""
    return (
        num_tiles if num_sequence == 1 else num_tiles + 1 + -(num_tiles + 1) % (num_sequence * TILES_MULTIPLE)
    )


def _place_rows(rows: Any, sharding: NamedSharding, mesh: Mesh, groups: tuple[int, ...]) -> jax.Array:
    """A global array of which this process has the cases of `groups`, in their order, each whole."""
    per_group = len(rows) // len(groups)
    num_groups = mesh.shape["data"] * mesh.shape["fsdp"]
    shape = (per_group * num_groups, *rows.shape[1:])

    def shard(index: tuple[slice, ...] | None) -> Any:
        assert index is not None
        start, stop, _ = index[0].indices(shape[0])
        offset = groups.index(start // per_group) * per_group - start
        return rows[(slice(start + offset, stop + offset), *index[1:])]

    return jax.make_array_from_callback(shape, sharding, shard)


def _case_groups(mesh: Mesh) -> dict[int, tuple[int, ...]]:
    """By process, the places along the cases' axes that its devices hold, `data` major."""
    held: dict[int, set[int]] = {}
    by_group = mesh.devices.reshape(-1, mesh.shape[SEQUENCE])
    for group, devices in enumerate(by_group):
        for device in devices:
            held.setdefault(device.process_index, set()).add(group)
    return {process: tuple(sorted(groups)) for process, groups in held.items()}


def num_case_shards(mesh: Mesh) -> int:
    """Parts that the cases of a batch are spread over."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def process_shard(mesh: Mesh) -> tuple[int, int]:
    """Which part of each global batch this process loads: (index, count).

    Processes that share the tiles of the same cases load the same part.

    Raises:
      InputError: two processes share some cases and not others.
    """
    groups = _case_groups(mesh)
    parts = sorted(set(groups.values()))
    if sum(map(len, parts)) > num_case_shards(mesh) or len({len(part) for part in parts}) > 1:
        raise InputError(
            f"mesh.sequence={mesh.shape[SEQUENCE]} lets processes share some of their cases only: make it "
            "divide the number of devices of a process, or be a multiple of it"
        )
    return parts.index(groups[jax.process_index()]), len(parts)


@contextlib.contextmanager
def tracing(mesh: Mesh) -> Iterator[None]:
    """What is traced inside knows the mesh: `split_size`, `per_case` and `per_tile` find it."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def split_size() -> int:
    """Devices that share the tiles of a case in what is being traced; 1 outside of `tracing`."""
    return jax.sharding.get_abstract_mesh().shape.get(SEQUENCE, 1)


def per_case(function: Callable[..., Any], in_specs: Any = WHOLE_CASES) -> Callable[..., Any]:
    """`function`, each device applying it to its own whole cases; arguments and results are `[b, ...]`.

    For what XLA would gather the cases of all devices for, as loops over blocks of a merged axis.
    `in_specs` tells which arguments are not of cases.
    """
    if split_size() > 1:
        raise ValueError("no device holds whole cases where the axis sequence is larger than 1")
    return _sharded(function, in_specs, WHOLE_CASES)


def per_tile(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`function`, each device applying it to its own tiles; it may talk over the axis `SEQUENCE`."""
    return _sharded(function, in_specs, out_specs)


def _sharded(function, in_specs, out_specs):
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
