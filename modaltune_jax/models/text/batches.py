"""Tokenized sentences of any lengths through a compiled encoder, in few shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

LENGTH_MULTIPLE = 32
"""Sentences are padded to multiples of this many tokens: few shapes, few compilations."""

Embed = Callable[[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]], Float[np.ndarray, "b d"]]
"""From token ids, and which of them are text, to vectors."""


def encode_in_batches(
    embed: Embed, tokens: Sequence[Sequence[int]], *, dim: int, batch_size: int, max_length: int, pad_id: int
) -> Float[np.ndarray, "n d"]:
    """Vectors of sentences in their order, computed in the order of their lengths.

    Args:
      embed: the encoder.
      tokens: ids of each sentence, at most `max_length` of them.
      dim: width d of a vector.
      batch_size: sentences encoded at once.
      max_length: tokens that the encoder takes.
      pad_id: stands behind the sentences that are shorter than the longest of their batch.
    """
    lengths = np.array([len(ids) for ids in tokens], int)
    vectors = np.zeros((len(tokens), dim), np.float32)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        # A short batch repeats its rows up to a power of two, for the sake of few shapes.
        filled = np.resize(rows, min(batch_size, 1 << (len(rows) - 1).bit_length()))
        longest = -(-lengths[rows].max() // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        mask = np.arange(min(longest, max_length)) < lengths[filled, None]
        ids = np.full(mask.shape, pad_id, np.int32)
        ids[mask] = np.concatenate([tokens[int(row)] for row in filled])
        vectors[rows] = np.asarray(embed(ids, mask))[: len(rows)]
    return vectors
