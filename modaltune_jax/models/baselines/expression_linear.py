"""Expression as it is: what a linear probe of the standardised genes knows."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class ExpressionLinearConfig:
    """There is nothing to choose."""


class ExpressionLinear(nnx.Module):
    """The standardised expression of a case, zeros without; no parameters.

    Probes on it are logistic regression and ridge Cox regression on the genes (Cox 1972, Hoerl & Kennard
    1970): the baseline that a network on expression has to beat.
    """

    modalities = ("expression",)

    def __init__(self, config: ExpressionLinearConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        self.out_dim = inputs.num_genes

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """Nothing here is random."""
        return zero_where_absent(batch.expression, batch, "expression")
