"""The jitted steps, functions of pure dicts: one trains, one predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from modaltune_jax import partitioning
from modaltune_jax.compilation import compiler_options
from modaltune_jax.losses.combine import Objective, similarity_logits
from modaltune_jax.losses.risk_memory import RiskMemory
from modaltune_jax.optim import Params, merge_params
from modaltune_jax.types import Batch


class TrainState(NamedTuple):
    """What a step takes and gives back; a pytree of trainable leaves only.

    The seed is data rather than a constant of the program, so that all seeds share one compilation.
    """

    step: jax.Array
    seed: jax.Array
    trainable: Params
    opt_state: optax.OptState
    memory: RiskMemory | None


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    mesh: Mesh,
    placed: TrainState,
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step: gradients and optimizer state exist for trainable leaves only.

    Args:
      graphdef: of the model.
      optimizer: of the trainable leaves.
      objective: the loss.
      mesh: the devices.
      placed: a state as it lies on the mesh, which the step leaves it in: a second step on other shardings
        than the first would compile again.
    """
    update = optax.with_extra_args_support(optimizer).update

    def train_step(state: TrainState, frozen: Params, batch: Batch):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)

        def loss(trainable: Params):
            params = partitioning.gather_params(merge_params(trainable, frozen), mesh)
            with partitioning.tracing(mesh):
                out = nnx.merge(graphdef, params)(batch, key)
            value, terms, memory = objective(out.embedding, out.predictions, batch, state.memory, state.step)
            return value, (terms, memory)

        (value, (terms, memory)), grads = jax.value_and_grad(loss, has_aux=True)(state.trainable)
        num_cases = batch.weight.sum()
        updates, opt_state = update(grads, state.opt_state, state.trainable, num_cases=num_cases)
        trainable = optax.apply_updates(state.trainable, updates)
        metrics = {
            "loss": value,
            "grad_norm": optax.global_norm(grads),
            "cases": num_cases,
            "terms": terms,
        }
        return TrainState(state.step + 1, state.seed, trainable, opt_state, memory), metrics

    places = jax.tree.map(lambda leaf: leaf.sharding, placed)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=(places, everywhere),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )


def make_predict_step(
    graphdef: nnx.GraphDef, bank: jax.Array | np.ndarray, mesh: Mesh
) -> Callable[[Params, Params, Batch], dict[str, jax.Array]]:
    """The jitted evaluation pass: dropout off.

    Args:
      graphdef: of the model.
      bank: `[k, d]` text vectors of the classes, for a model with a head for them.
      mesh: the devices.
    """

    def predict_step(trainable: Params, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
        params = partitioning.gather_params(merge_params(trainable, frozen), mesh)
        with partitioning.tracing(mesh):
            out = nnx.merge(graphdef, params)(batch)
        said = out.predictions
        values = {
            "embedding": out.embedding,
            "risk": said.risk,
            "hazard": said.hazard,
            "classes": said.classes,
        }
        if said.text is not None:
            values["similarity"] = similarity_logits(said, jnp.asarray(bank))
        return {name: value for name, value in values.items() if value is not None}

    return jax.jit(predict_step)
