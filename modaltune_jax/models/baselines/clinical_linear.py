"""Clinical values as they are: what a linear probe of stage and age knows."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class ClinicalLinearConfig:
    """There is nothing to choose."""


class ClinicalLinear(nnx.Module):
    """The encoded clinical values of a case, zeros without; no parameters.

    Probes on it are logistic regression and ridge Cox regression (Cox 1972, Hoerl & Kennard 1970) on what a
    physician would look up first.
    """

    modalities = ("clinical",)

    def __init__(self, config: ClinicalLinearConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        self.out_dim = inputs.num_clinical

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """Nothing here is random."""
        return zero_where_absent(batch.clinical, batch, "clinical")
