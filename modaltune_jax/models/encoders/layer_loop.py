"""Equal layers as one loop: what is compiled is one layer, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array


def scan_layers(
    run: Callable[..., Array], layers: Sequence[nnx.Module], x: Array, *of_each_layer: Array
) -> Array:
    """`for layer, ...: x = run(layer, x, ...)` by `jax.lax.scan`; parameters are stacked while it runs.

    Args:
      run: `run(layer, x, ...)` gives the next x, of the same shape and dtype.
      layers: equal in all but the values of their parameters, at least one.
      x: what the first layer takes.
      of_each_layer: further arguments of `run`, one row a layer.
    """
    graphdef = nnx.graphdef(layers[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, layers))

    def body(x, row):
        params, rest = row
        return run(nnx.merge(graphdef, params), x, *rest), None

    return lax.scan(body, x, (stacked, of_each_layer))[0]
