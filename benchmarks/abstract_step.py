"""The train step of a config as shapes: what a compiler needs, without a weight or a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modaltune_jax.config import Config
from modaltune_jax.losses.combine import LabelSpace, make_objective
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune, ModelConfig
from modaltune_jax.optim import make_optimizer, path_name, split_params
from modaltune_jax.partitioning import CASES, SEQUENCE, TILES_MULTIPLE, param_spec
from modaltune_jax.train_step import TrainState, make_train_step
from modaltune_jax.types import MODALITIES, Batch


def train_step(
    config: Config,
    genes: Sequence[np.ndarray],
    cases: int,
    tiles: int,
    mesh: Mesh,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step, and the shapes of state, frozen weights and batch as they lie on the mesh.

    Args:
      config: the experiment.
      genes: of each pathway, by index.
      cases: in the batch, of all devices.
      tiles: of a case.
      mesh: of devices that need not be here.
      optimizer: another than the config's.
    """
    assert isinstance(config.model, ModelConfig), "a config of a baseline"
    sizes = config.model
    model = nnx.eval_shape(lambda: ModalTune(sizes, ModalInputs(tuple(genes), 0), rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    trainable, frozen = split_params(nnx.to_pure_dict(state), config.optim.rules)
    optimizer = optimizer or make_optimizer(config.optim, steps_per_epoch=100)
    first, frozen = place_state(trainable, frozen, optimizer, mesh)
    none = np.zeros((0, 0), np.float32)
    labels = LabelSpace(none, none, class_site=np.zeros(0, np.int32), class_weight=np.zeros(0, np.float32))
    objective = make_objective(config.loss, labels, steps_per_epoch=100)
    batch = place_batch(cases, tiles, sizes, 1 + max(int(members.max()) for members in genes), mesh)
    return make_train_step(graphdef, optimizer, objective, mesh, first), (first, frozen, batch)


def place_state(trainable: Any, frozen: Any, optimizer: Any, mesh: Mesh) -> tuple[Any, Any]:
    """Shapes of the first state and of the frozen weights, where `partitioning` puts them."""

    def place(params):
        flat = traverse_util.flatten_dict(params)
        specs = {path: param_spec(path_name(path), leaf.shape, mesh) for path, leaf in flat.items()}
        flat = {path: _shape(leaf.shape, leaf.dtype, mesh, specs[path]) for path, leaf in flat.items()}
        return traverse_util.unflatten_dict(flat)

    trainable = place(trainable)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, param: param,
        jax.eval_shape(optimizer.init, trainable),
        trainable,
        transform_non_params=lambda leaf: _shape(leaf.shape, leaf.dtype, mesh, P()),
    )
    step, seed = (cast(jax.Array, _shape((), dtype, mesh, P())) for dtype in (jnp.int32, jnp.uint32))
    return TrainState(step, seed, trainable, opt_state, None), place(frozen)


def place_batch(cases: int, tiles: int, model: ModelConfig, num_genes: int, mesh: Mesh) -> Batch:
    """Shapes of a batch as `partitioning.shard_batch` places it."""
    num_sequence = mesh.shape[SEQUENCE]
    if num_sequence > 1:  # with room for the class token, see there
        tiles += -(tiles + 1) % (num_sequence * TILES_MULTIPLE) + 1

    by_case, by_tile = P(CASES), P(CASES, SEQUENCE) if num_sequence > 1 else P(CASES)

    def rows(*shape, dtype: Any = jnp.float32, spec: P = by_case):
        return _shape((cases, *shape), dtype, mesh, spec)

    return Batch(
        features=rows(tiles, model.in_dim, spec=by_tile),
        cells=rows(tiles, 2, dtype=jnp.int32, spec=by_tile),
        length=rows(dtype=jnp.int32),
        expression=rows(num_genes),
        clinical=rows(0),
        present=rows(len(MODALITIES), dtype=jnp.bool_),
        targets=rows(len(model.tasks), model.embedding_dim),
        subtype=rows(dtype=jnp.int32),
        site=rows(dtype=jnp.int32),
        time=rows(),
        event=rows(dtype=jnp.int32),
        weight=rows(),
        index=rows(dtype=jnp.int32),
    )


def _shape(shape: tuple[int, ...], dtype: Any, mesh: Mesh, spec: P) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
