"""Floating point operations of a training step by formula, and what a device could do at best.

Counted is what the model needs: two operations a multiply-add of every matrix product and of attention among
real rows. Zero rows that pad the last segment, logits that are formed again in the backward pass, norms and
activations are not counted, so utilisation is never flattered by waste.
"""

from __future__ import annotations

import time

from modaltune_jax.models.encoders.longnet import LongNetConfig
from modaltune_jax.models.encoders.mean_pool import MeanPoolConfig
from modaltune_jax.models.encoders.titan import TitanConfig
from modaltune_jax.models.modaltune import ModelConfig

PEAKS = {
    # Dense matrix products in bfloat16, FLOP/s a chip, as its maker states them.
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""By the beginning of `jax.Device.device_kind`; the longest that fits counts."""


def train_flops(config: ModelConfig, tiles: int, *, is_frozen: bool) -> float:
    """Operations of forward and backward pass of one case of `tiles` tiles through all tasks.

    Args:
      config: the model.
      tiles: real tiles of the case.
      is_frozen: the encoder's weights need no gradient, so that a linear layer's backward pass is one
        product and not two.
    """
    tokens, encoder, tasks = tiles + 1, config.encoder, len(config.tasks)
    linear, attention = _encoder_layer(encoder, tokens)
    encoded = encoder.depth * (linear * (2 if is_frozen else 3) + 3 * attention)
    embedded = 2.0 * tiles * encoder.in_dim * encoder.width * (1 if is_frozen else 2)
    return embedded + tasks * (encoded + 3 * _adapter(config, tiles))


def known_peak(device_kind: str) -> float | None:
    """FLOP/s of a known accelerator in bfloat16; None of any other."""
    names = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(names, key=len)] if names else None


def measured_peak(side: int = 4096, rounds: int = 5) -> float:
    """FLOP/s of the fastest of some float32 products of square matrices on jax's first device."""
    import jax
    import jax.numpy as jnp

    x = jnp.full((side, side), 0.5, jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)


def _encoder_layer(encoder: LongNetConfig | TitanConfig | MeanPoolConfig, n: int) -> tuple[float, float]:
    """Operations of the linear layers and of the attention of one layer, forward, on n tokens."""
    if isinstance(encoder, MeanPoolConfig):
        return 0.0, 0.0
    hidden = encoder.mlp_dim if isinstance(encoder, TitanConfig) else encoder.ffn_dim
    linear = 2.0 * n * (4 * encoder.width**2 + 2 * encoder.width * hidden)
    pairs = float(n * n) if isinstance(encoder, TitanConfig) else _dilated_pairs(encoder, n)
    return linear, 4.0 * pairs * encoder.width


def _dilated_pairs(encoder: LongNetConfig, n: int) -> float:
    """Pairs of query and key of one head, over all branches, real rows only."""
    pairs = 0.0
    for segment, ratio in zip(encoder.segment_lengths, encoder.dilated_ratios, strict=True):
        whole, rest = divmod(n, segment)
        pairs += whole * (-(-segment // ratio)) ** 2 + (-(-rest // ratio)) ** 2
    return pairs


def _adapter(config: ModelConfig, tiles: int) -> float:
    """Forward operations of adapter and modal tokens of one task.

    Terms without a factor of `tiles` are those of the modal tokens among themselves; they are small but for
    short bags.
    """
    width, adapter, pathways = config.encoder.width, config.adapter, config.pathways
    inner, hidden = int(width * adapter.attention_ratio), int(width * adapter.ffn_ratio)
    modal = pathways.num_tokens + 1

    def cross(queries: int, keys: int) -> float:
        projected = queries * (2 * width * inner + 2 * inner * inner) + keys * 2 * width * inner
        return 2.0 * projected + 4.0 * queries * keys * inner

    stages = len(adapter.stages)
    injectors = stages * cross(tiles, modal)
    feed_forward = 4.0 * modal * width * hidden
    extractors = (stages + adapter.num_extra_extractors) * (cross(modal, tiles) + feed_forward)
    return injectors + extractors + (stages - 1) * cross(modal, modal)
