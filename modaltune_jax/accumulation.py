"""Gradients of several batches in one update."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


class Accumulated(NamedTuple):
    """State of `accumulate`: what an update is still waiting for.

    Attributes:
      inner: state of the optimizer, that of its last update.
      total: sum of the gradients, each times the cases of its batch.
      num_cases: cases so far.
      num_batches: batches so far, fewer than make an update.
    """

    inner: optax.OptState
    total: optax.Params
    num_cases: Float[Array, ""]
    num_batches: Int[Array, ""]


def accumulate(
    optimizer: optax.GradientTransformation, num_batches: int
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that updates once in `num_batches` calls, and changes nothing in the others.

    An update is by the mean over all cases of its batches: gradients weigh as many cases as their batch has,
    without filler. So batches of different sizes give what one large batch would, of a loss that is a mean
    over cases, as distillation is. Terms that compare cases (Cox, ranking) compare those of a batch only, and
    terms over cases with a label weigh by all cases. Updates go on across the edges of epochs; batches
    that are left at the end of training, fewer than make an update, are not used.

    Args:
      optimizer: gets the mean gradient; clipping and schedule are of updates.
      num_batches: batches an update.

    Returns:
      The optimizer; its `update` takes `num_cases`, the cases that a gradient is the mean over.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> Accumulated:
        zeros = optax.tree.zeros_like(params)
        return Accumulated(inner.init(params), zeros, jnp.float32(0), jnp.int32(0))

    def update(
        grads: optax.Updates,
        state: Accumulated,
        params: optax.Params | None = None,
        *,
        num_cases: Float[Array, ""],
        **extra: Any,
    ) -> tuple[optax.Updates, Accumulated]:
        total = jax.tree.map(lambda total, grad: total + num_cases * grad, state.total, grads)
        state = Accumulated(state.inner, total, state.num_cases + num_cases, state.num_batches + 1)

        def apply(state: Accumulated) -> tuple[optax.Updates, Accumulated]:
            mean = jax.tree.map(lambda total: total / jnp.maximum(state.num_cases, 1.0), state.total)
            updates, new = inner.update(mean, state.inner, params, **extra)
            zeros = optax.tree.zeros_like(state.total)
            return updates, Accumulated(new, zeros, jnp.float32(0), jnp.int32(0))

        def wait(state: Accumulated) -> tuple[optax.Updates, Accumulated]:
            return optax.tree.zeros_like(grads), state

        return jax.lax.cond(state.num_batches == num_batches, apply, wait, state)

    return optax.GradientTransformationExtraArgs(init, update)
