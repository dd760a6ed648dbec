"""The encoder protocol: what the adapter needs to know about a slide encoder, and nothing more."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int


class Tokens(NamedTuple):
    """Tile tokens on their way through an encoder.

    Attributes:
      cls: `[b, d]` class token.
      tiles: `[b, l, d]`; rows at or beyond `length` are padding and may hold anything finite.
      cells: `[b, l, 2]` (column, row) of each tile in its grid; padding may hold anything here too.
      length: `[b]` int32 number of real tiles.
    """

    cls: Float[Array, "b d"]
    tiles: Float[Array, "b l d"]
    cells: Int[Array, "b l 2"]
    length: Int[Array, "b"]


@runtime_checkable
class SlideEncoder(Protocol):
    """A pretrained slide encoder, cut so that an adapter can act between its blocks.

    A new encoder is one file with this interface, one conversion table, one parity test. Padding
    must change nothing: every output row depends on the first `length` tiles only.
    """

    width: int
    depth: int
    in_dim: int

    def embed(
        self,
        features: Float[Array, "b l f"],
        cells: Int[Array, "b l 2"],
        length: Int[Array, "b"],
    ) -> Tokens:
        """Tile features and grid cells to tokens."""
        ...

    def run_blocks(self, tokens: Tokens, start: int, stop: int, key: jax.Array | None = None) -> Tokens:
        """Runs blocks `start` to `stop` (exclusive). `key` switches dropout on; None is evaluation."""
        ...

    def pool(self, tokens: Tokens) -> Float[Array, "b d"]:
        """One vector a case, as the adapter path takes it (for LongNet: the class token, no norm)."""
        ...

    def __call__(
        self,
        features: Float[Array, "b l f"],
        cells: Int[Array, "b l 2"],
        length: Int[Array, "b"],
        key: jax.Array | None = None,
    ) -> Float[Array, "b d"]:
        """The published embedding of the encoder by itself."""
        ...
