"""RNA expression to tokens: one small network per pathway, a mixer over pathways, a compression.

ModalTune (Ramanathan et al. 2025), gene encoder; the mixer is Tolstikhin et al. 2021 with pathways
in the place of patches. Small parts first, the encoder last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.layers import LECUN_NORMAL, layer_norm, linear, with_idle_bias
from modaltune_jax.models.regularisation import alpha_dropout, dropout, fold


@dataclasses.dataclass(frozen=True)
class PathwayConfig:
    """Sizes of the pathway encoder.

    Attributes:
      latent_dim: channels of a pathway.
      depth: mixer blocks.
      pathway_expansion: hidden share of the mixing over pathways.
      channel_expansion: hidden share of the mixing over channels.
      num_tokens: modal tokens the pathways are compressed to.
      dropout: rate of alpha dropout in the pathway networks and of dropout in the mixer.
    """

    latent_dim: int
    depth: int
    pathway_expansion: float
    channel_expansion: float
    num_tokens: int
    dropout: float


class PathwayNetworks(nnx.Module):
    """Two layers of its own for every pathway: Linear, ELU, alpha dropout, twice.

    The first layers are ragged (1 to 199 genes): one weight row a membership, summed by segment. The
    second layers are one batched product.

    Args:
      groups: gene indices of each pathway.
      latent: channels c of a pathway.
      rate: of alpha dropout.
    """

    def __init__(self, groups: Sequence[np.ndarray], latent: int, rate: float, *, rngs: nnx.Rngs):
        num_pathways = len(groups)
        # Tuples, not arrays: these are structure, not state.
        self.gene_index = tuple(int(i) for group in groups for i in group)
        self.pathway_index = tuple(p for p, group in enumerate(groups) for _ in group)
        self.num_pathways = num_pathways
        self.rate = rate
        fan_in = np.repeat([len(g) for g in groups], [len(g) for g in groups])[:, None]
        normal = jax.random.normal(rngs.params(), (len(self.gene_index), latent))
        self.kernel1 = nnx.Param(normal * fan_in**-0.5)
        self.bias1 = nnx.Param(jnp.zeros((num_pathways, latent)))
        batched = nnx.initializers.lecun_normal(batch_axis=0)
        self.kernel2 = nnx.Param(batched(rngs.params(), (num_pathways, latent, latent)))
        self.bias2 = nnx.Param(jnp.zeros((num_pathways, latent)))

    def __call__(
        self, expression: Float[Array, "b genes"], key: jax.Array | None = None
    ) -> Float[Array, "b g c"]:
        genes, pathways = np.array(self.gene_index, np.int32), np.array(self.pathway_index, np.int32)
        members = expression[:, genes].T[:, :, None] * self.kernel1[...][:, None, :]
        summed = jax.ops.segment_sum(members, pathways, self.num_pathways, indices_are_sorted=True)
        hidden = jax.nn.elu(summed.swapaxes(0, 1) + self.bias1[...])
        hidden = alpha_dropout(hidden, self.rate, fold(key, 0))
        hidden = jax.nn.elu(jnp.einsum("bgc,gce->bge", hidden, self.kernel2[...]) + self.bias2[...])
        return alpha_dropout(hidden, self.rate, fold(key, 1))


class Mixing(nnx.Module):
    """Linear, exact GELU, Linear over the last axis, dropout after both; see `with_idle_bias`."""

    def __init__(self, dim: int, expansion: float, rate: float, *, is_bias_idle: bool, rngs: nnx.Rngs):
        hidden = int(dim * expansion)
        self.rate = rate
        self.is_bias_idle = is_bias_idle
        self.expand = linear(dim, hidden, LECUN_NORMAL, rngs=rngs)
        self.contract = linear(hidden, dim, LECUN_NORMAL, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], key: jax.Array | None = None) -> Float[Array, "b n c"]:
        hidden = dropout(jax.nn.gelu(self.expand(x), approximate=False), self.rate, fold(key, 0))
        mixed = with_idle_bias(self.contract, hidden) if self.is_bias_idle else self.contract(hidden)
        return dropout(mixed, self.rate, fold(key, 1))


class MixerBlock(nnx.Module):
    """Pre-norm residual mixing over pathways, then over channels."""

    def __init__(self, num_pathways: int, config: PathwayConfig, *, rngs: nnx.Rngs):
        latent, rate = config.latent_dim, config.dropout
        self.norm1 = layer_norm(latent, rngs=rngs)
        # Its bias adds the same to all channels of a pathway, and every reader takes the LayerNorm of those.
        self.over_pathways = Mixing(
            num_pathways, config.pathway_expansion, rate, is_bias_idle=True, rngs=rngs
        )
        self.norm2 = layer_norm(latent, rngs=rngs)
        self.over_channels = Mixing(latent, config.channel_expansion, rate, is_bias_idle=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b g c"], measured: Bool[np.ndarray, "g 1"], key: jax.Array | None = None
    ) -> Float[Array, "b g c"]:
        normed = jnp.where(measured, self.norm1(x), 0.0)
        x = x + self.over_pathways(normed.swapaxes(1, 2), fold(key, 0)).swapaxes(1, 2)
        return x + self.over_channels(self.norm2(x), fold(key, 1))


class PathwayEncoder(nnx.Module):
    """Expression `[b, genes]` to modal tokens `[b, num_tokens, d]`.

    Args:
      groups: gene indices of each pathway. A pathway with no measured gene (an empty group) keeps its
        place, so that published weights fit, but is masked: it tells the others nothing.
      dim: width d of the modal tokens.
    """

    def __init__(self, groups: Sequence[np.ndarray], dim: int, config: PathwayConfig, *, rngs: nnx.Rngs):
        self.measured = tuple(len(g) > 0 for g in groups)
        self.num_tokens = config.num_tokens
        self.networks = PathwayNetworks(groups, config.latent_dim, config.dropout, rngs=rngs)
        self.blocks = nnx.List([MixerBlock(len(groups), config, rngs=rngs) for _ in range(config.depth)])
        self.norm = layer_norm(config.latent_dim, rngs=rngs)
        self.proj = linear(config.latent_dim, dim, LECUN_NORMAL, rngs=rngs)
        self.compression = linear(len(groups), config.num_tokens, LECUN_NORMAL, rngs=rngs)

    def __call__(
        self, expression: Float[Array, "b genes"], key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        measured = np.array(self.measured)[:, None]
        x = self.networks(expression, fold(key, 0))
        for i, block in enumerate(self.blocks):
            x = block(x, measured, fold(key, 1 + i))
        tokens = jnp.where(measured, self.proj(self.norm(x)), 0.0)
        # This bias too adds the same to all channels of a token, of which only LayerNorms are read.
        return with_idle_bias(self.compression, tokens.swapaxes(1, 2)).swapaxes(1, 2)
