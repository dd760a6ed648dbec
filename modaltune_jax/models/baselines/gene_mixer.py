"""The pathway mixer of ModalTune by itself: its tokens, averaged.

"Gene Mixer" of Ramanathan et al. 2025: per-pathway networks, an MLP-Mixer (Tolstikhin et al. 2021) over
pathways and channels.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.gene_groups import measured_groups
from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.layers import layer_norm
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.pathways import PathwayConfig, PathwayEncoder
from modaltune_jax.models.regularisation import fold
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class GeneMixerConfig:
    """Sizes of a `GeneMixer`.

    Attributes:
      pathways: the expression encoder, with the keys of `model.pathways`.
      dim: width of its tokens, and of the vector of a case.
    """

    pathways: PathwayConfig
    dim: int

    @classmethod
    def published(cls) -> GeneMixerConfig:
        """As ModalTune has it on Prov-GigaPath."""
        pathways = PathwayConfig(
            latent_dim=256,
            depth=3,
            pathway_expansion=0.5,
            channel_expansion=0.5,
            num_tokens=64,
            dropout=0.25,
        )
        return cls(pathways, dim=768)


class GeneMixer(nnx.Module):
    """Pathway tokens, their mean, LayerNorm; a case without expression is zeros.

    The LayerNorm is what `PathwayEncoder` expects of its readers.
    """

    modalities = ("expression",)

    def __init__(self, config: GeneMixerConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        measured_groups(inputs)  # raises where there are none
        self.encoder = PathwayEncoder(inputs.gene_groups, config.dim, config.pathways, rngs=rngs)
        self.norm = layer_norm(config.dim, rngs=rngs)
        self.out_dim = config.dim

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The pooled tokens; `key` switches dropout on."""
        tokens = self.encoder(batch.expression, fold(key, 0))
        return zero_where_absent(self.norm(tokens.mean(axis=1)), batch, "expression")
