"""What a training step will take of a device's memory, from its shapes alone: known before it is compiled.

The step is traced as `jax.jit` would trace it at its first call, which finds that trace again: a plan takes
next to no time of its own. Walking through the operations in the order of the program, with what each one
makes and what is not needed any more, gives the bytes at the fullest moment. A compiler joins operations and
orders them anew; docs/performance.md says how far it was from these estimates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Var
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modaltune_jax import host_memory
from modaltune_jax.inputs.pipeline import Batches
from modaltune_jax.inputs.plan import Step
from modaltune_jax.optim import Params
from modaltune_jax.partitioning import CASES, SEQUENCE, num_case_shards, split_tiles
from modaltune_jax.train_step import TrainState
from modaltune_jax.types import Batch, InputError

_KERNELS = ("pallas_call",)
"""What they hold inside is not in the device's main memory."""

MARGIN = 1.8
"""Compilers have been seen to take 0.5 to 1.7 times the estimate, see docs/performance.md."""


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one device at the largest batch, estimated.

    Attributes:
      cases: of the batch, on one device.
      tiles: of a case, all of them, padded.
      frozen, trainable: weights; `whole` those gathered for a step where devices share them.
      gradients: of the trainable weights.
      optimizer: its state, and that of the losses.
      batch: one.
      kept: made in the forward pass for the backward pass.
      working: beside that at the fullest moment, such as what a layer forms again.
      bytes_per_tile: what one tile of one case adds.
      limit: that there are at all.
      free: that there are for this program.
    """

    cases: int
    tiles: int
    frozen: int
    trainable: int
    whole: int
    gradients: int
    optimizer: int
    batch: int
    kept: int
    working: int
    bytes_per_tile: float
    limit: int
    free: int

    @property
    def fixed(self) -> int:
        """Bytes that are certain, whatever the compiler does."""
        return self.frozen + self.trainable + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment."""
        return self.fixed + self.whole + self.batch + self.kept + self.working

    @property
    def max_tiles(self) -> int:
        """The largest bag that fits, alone on a device; it may be split over several."""
        others = self.fixed + self.whole
        for_one = (self.batch + self.kept + self.working) / max(
            self.cases, 1
        ) - self.bytes_per_tile * self.tiles
        return max(int((self.free - others - for_one) / self.bytes_per_tile), 0)

    def check(self) -> None:
        """Refuses what cannot fit whatever the compiler does.

        Raises:
          InputError: weights, gradients, optimizer and a batch are more than the device has.
        """
        if self.fixed + self.batch > self.limit:
            raise InputError(
                f"weights, gradients, optimizer and a batch take {_gb(self.fixed + self.batch)}, but a "
                f"device has {_gb(self.limit)}: share weights with mesh.fsdp, or lower "
                "pipeline.tokens_per_batch"
            )

    def to_text(self, is_remat: bool | None) -> str:
        """Lines for people: the plan, and what to do if it does not fit.

        Args:
          is_remat: `model.encoder.remat`; None for an encoder without.
        """
        whole = f", gathered {_gb(self.whole)}" if self.whole else ""
        lines = [
            f"memory a device, {self.cases} x {self.tiles:,} tiles: weights {_gb(self.frozen)} frozen and "
            f"{_gb(self.trainable)} trainable{whole}, gradients {_gb(self.gradients)}, optimizer "
            f"{_gb(self.optimizer)}, batch {_gb(self.batch)}, kept for the backward pass {_gb(self.kept)}, "
            f"working {_gb(self.working)}",
            f"estimated {_gb(self.peak)} of {_gb(self.free)}, within a factor of {MARGIN}; the largest bag "
            f"that fits the estimate has {self.max_tiles:,} tiles",
        ]
        if MARGIN * self.peak > self.free:
            advice = ["lower pipeline.tokens_per_batch or pipeline.max_tiles", "raise mesh.sequence"]
            if is_remat is not None:
                advice.append('set model.encoder.dtype="bfloat16"')
            if is_remat is False:
                advice.insert(0, "set model.encoder.remat=True")
            lines.append(f"warning: this may not fit: {', '.join(advice)}")
        return "\n".join(lines)


def plan_memory(
    train_step: Any, state: TrainState, frozen: Params, batches: Batches, mesh: Mesh
) -> MemoryPlan:
    """The plan of a training run, from its largest batch and its smallest.

    Args:
      train_step: jitted, from `train_step.make_train_step`.
      state: on the mesh.
      frozen: on the mesh.
      batches: of training.
      mesh: the devices.
    """
    by_tokens = sorted(batches.plan.shapes, key=math.prod)
    example = batches.load(Step(0, 1, np.array([-1], np.int32)))
    rows: list[tuple[float, int, int, int, int]] = []
    for cases, tiles in dict.fromkeys((by_tokens[-1], by_tokens[0])):
        batch = batch_shapes(example, cases, tiles, mesh)
        kept, working = activations(train_step, state, frozen, batch)
        rows.append((cases / num_case_shards(mesh), tiles, kept, working, device_bytes(batch)))
    device_cases, tiles, kept, working, batch_bytes = rows[0]
    device = mesh.local_devices[0]
    held = device_bytes(state) + device_bytes(frozen)
    limit, free = device_memory(device, held)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves((state.trainable, frozen)))
    return MemoryPlan(
        cases=int(device_cases),
        tiles=tiles,
        frozen=device_bytes(frozen),
        trainable=device_bytes(state.trainable),
        whole=whole if mesh.shape["fsdp"] > 1 else 0,
        gradients=sum(leaf.nbytes for leaf in jax.tree.leaves(state.trainable)),
        optimizer=device_bytes((state.opt_state, state.memory)),
        batch=batch_bytes,
        kept=kept,
        working=working,
        bytes_per_tile=_slope([(tiles, sum(parts) / cases) for cases, tiles, *parts in rows]),
        limit=limit,
        free=free,
    )


def _slope(points: list[tuple[int, float]]) -> float:
    """Bytes a tile, of the line through (tiles, bytes a case); through nothing where lengths are the same."""
    (tiles, size), (other, less) = points[0], points[-1]
    return (size - less) / (tiles - other) if tiles > other and size > less else size / max(tiles, 1)


def batch_shapes(example: Batch, cases: int, tiles: int, mesh: Mesh) -> Batch:
    """Shapes of a global batch as `partitioning.shard_batch` places it; `example` tells all others."""
    num_sequence = mesh.shape[SEQUENCE]
    tiles = split_tiles(tiles, num_sequence)
    by_tile = P(CASES, SEQUENCE) if num_sequence > 1 else P(CASES)

    def shape(name: str, value: np.ndarray) -> jax.ShapeDtypeStruct:
        is_tiles = name in ("features", "cells")
        rest = (tiles, *value.shape[2:]) if is_tiles else value.shape[1:]
        sharding = NamedSharding(mesh, by_tile if is_tiles else P(CASES))
        return jax.ShapeDtypeStruct((cases, *rest), value.dtype, sharding=sharding)

    return Batch(*(shape(name, value) for name, value in zip(Batch._fields, example, strict=True)))


def activations(train_step: Any, state: TrainState, frozen: Params, batch: Batch) -> tuple[int, int]:
    """Bytes that a step makes of a batch, on one device: kept for the backward pass, and formed beside that.

    Args:
      train_step: jitted.
      state: arrays or their shapes, on the mesh, as all others.
      frozen: the other weights.
      batch: one.
    """
    weights = {leaf.shape for leaf in jax.tree.leaves((state.trainable, frozen))}
    program = train_step.trace(state, frozen, batch).jaxpr.jaxpr
    return fullest(program, frozenset(weights), len(batch.length.sharding.device_set))


def fullest(program: Jaxpr, weights: frozenset[tuple[int, ...]], num_devices: int = 1) -> tuple[int, int]:
    """Bytes that are held at the fullest moment of a program, on one device, beside its arguments.

    Args:
      program: what was traced.
      weights: shapes of parameters; values of these are gradients and the like and are not counted.
      num_devices: that share each value, but those inside of `jax.shard_map`, which are one device's.

    Returns:
      What the outermost operations have made, and what those inside the operation of that moment have.
    """
    dies: dict[int, list[Var]] = {}
    last = {var: i for i, eqn in enumerate(program.eqns) for var in eqn.invars if isinstance(var, Var)}
    # Results are held to the end.
    last |= {var: len(program.eqns) for var in program.outvars if isinstance(var, Var)}
    for var, i in last.items():
        dies.setdefault(i, []).append(var)
    held: dict[Var, int] = {}
    now, most = 0, (0, 0)
    for i, eqn in enumerate(program.eqns):
        name = eqn.primitive.name
        made = {var: _size(var, weights) // num_devices for var in eqn.outvars if var in last}
        parts = 1 if name == "shard_map" else num_devices
        inner = [] if name in _KERNELS else [sum(fullest(p, weights, parts)) for p in _programs(eqn.params)]
        working = max(sum(made.values()), *inner, 0)
        most = max(most, (now, working), key=sum)
        held |= made
        now += sum(made.values()) - sum(held.pop(var, 0) for var in dies.get(i, ()))
    return most


def _programs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Programs within an operation: bodies of loops and branches, what is called."""
    for param in params.values():
        for value in param if isinstance(param, tuple | list) else (param,):
            value = getattr(value, "jaxpr", value)
            if isinstance(value, Jaxpr):
                yield value


def _size(var: Var, weights: frozenset[tuple[int, ...]]) -> int:
    shape, dtype = getattr(var.aval, "shape", ()), getattr(var.aval, "dtype", None)
    return 0 if dtype is None or shape in weights else math.prod(shape) * dtype.itemsize


def device_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes, on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def device_memory(device: jax.Device, held: int) -> tuple[int, int]:
    """Bytes that a device has, and those that a program may take of which it holds `held` already."""
    if device.platform == "cpu":
        shares = len([other for other in jax.local_devices() if other.platform == "cpu"])
        return host_memory.limit(), host_memory.available() // shares + held
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None:
        raise InputError(f"{device} does not say how much memory it has")
    return limit, limit


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
