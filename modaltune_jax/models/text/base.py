"""The text encoder protocol: what targets and class prompts need to know about an encoder of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen encoder of sentences.

    Attributes:
      dim: width d of its vectors.
      fingerprint: sha256 that changes whenever the vectors would.
    """

    dim: int
    fingerprint: str

    def encode(self, sentences: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """One float32 vector per sentence."""
        ...
