"""An MLP whose first layers follow the pathways.

The sparse, pathway-aware MLP that Jaume et al. 2024 compare SurvPath with, after Elmarakeby et al. 2021:
two layers of its own for every pathway, then dense ones over all of them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.gene_groups import measured_groups
from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.layers import LECUN_NORMAL, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.pathways import PathwayNetworks
from modaltune_jax.models.regularisation import alpha_dropout, fold
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class SparseMlpConfig:
    """Sizes of a `SparseMlp`.

    Attributes:
      latent_dim: channels of a pathway.
      width: of the dense layer, the vector of a case.
      dropout: rate of alpha dropout after every layer.
    """

    latent_dim: int
    width: int
    dropout: float

    @classmethod
    def published(cls) -> SparseMlpConfig:
        """Pathway networks as SurvPath has them; the paper does not give the dense width."""
        return cls(latent_dim=256, width=256, dropout=0.25)


class SparseMlp(nnx.Module):
    """Pathway networks side by side, Linear, ELU, alpha dropout; a case without expression is zeros."""

    modalities = ("expression",)

    def __init__(self, config: SparseMlpConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        groups = inputs.gene_groups
        self.measured = measured_groups(inputs)
        self.networks = PathwayNetworks(groups, config.latent_dim, config.dropout, rngs=rngs)
        self.dense = linear(len(groups) * config.latent_dim, config.width, LECUN_NORMAL, rngs=rngs)
        self.rate = config.dropout
        self.out_dim = config.width

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The dense layer; `key` switches alpha dropout on."""
        pathways = self.networks(batch.expression, fold(key, 0))
        pathways = jnp.where(np.array(self.measured)[:, None], pathways, 0.0)
        dense = jax.nn.elu(self.dense(pathways.reshape(len(pathways), -1)))
        return zero_where_absent(alpha_dropout(dense, self.rate, fold(key, 1)), batch, "expression")
