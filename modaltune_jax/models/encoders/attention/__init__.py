"""Softmax attention with log-sum-exp: one function (`dispatch.py`), one file an implementation."""

from modaltune_jax.models.encoders.attention.dispatch import IMPLEMENTATIONS, attend
from modaltune_jax.models.encoders.attention.xla import SAVED

__all__ = ["IMPLEMENTATIONS", "SAVED", "attend"]
