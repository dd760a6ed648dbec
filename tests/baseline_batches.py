"""Batches of noise for baselines, and the sizes that come with them."""

import numpy as np

from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import MODALITIES, Batch

IN_DIM, NUM_GENES, NUM_CLINICAL = 12, 11, 16
INPUTS = ModalInputs((np.arange(5), np.arange(4, 9), np.array([], int)), NUM_CLINICAL, NUM_GENES)


def draw(lengths: tuple[int, ...], *, bucket: int = 0, absent: tuple[str, ...] = (), seed: int = 0) -> Batch:
    """Cases of these numbers of tiles, in bags of `bucket` rows, without the modalities in `absent`.

    Like the pipeline's, all that a case lacks is 0.
    """
    rng = np.random.default_rng(seed)
    num, rows = len(lengths), bucket or max(lengths)
    features = np.zeros((num, rows, IN_DIM), np.float32)
    cells = np.zeros((num, rows, 2), np.int32)
    for i, length in enumerate(lengths):
        features[i, :length] = rng.normal(size=(length, IN_DIM))
        cells[i, :length] = rng.integers(0, 20, (length, 2))
    present = np.tile(np.isin(MODALITIES, absent, invert=True), (num, 1))
    present[:, 0] &= np.array(lengths) > 0
    expression = rng.normal(size=(num, NUM_GENES)).astype(np.float32)
    clinical = rng.normal(size=(num, NUM_CLINICAL)).astype(np.float32)
    return Batch(
        features=features,
        cells=cells,
        length=np.array(lengths, np.int32),
        expression=expression * present[:, 1:2],
        clinical=clinical * present[:, 2:3],
        present=present,
        targets=np.zeros((num, 0, 0), np.float32),
        subtype=np.arange(num, dtype=np.int32) % 2,
        site=np.zeros(num, np.int32),
        time=np.ones(num, np.float32),
        event=np.ones(num, np.int32),
        weight=np.ones(num, np.float32),
        index=np.arange(num, dtype=np.int32),
    )


def case(batch: Batch, i: int) -> Batch:
    """Case i by itself, without padding."""
    one = Batch(*(values[i : i + 1] for values in batch))
    length = max(int(one.length[0]), 1)
    return one._replace(features=one.features[:, :length], cells=one.cells[:, :length])
