"""Embeddings land in the rows of their cases."""

import jax.numpy as jnp
import numpy as np

from modaltune_jax.embed_cases import predict_cases
from modaltune_jax.partitioning import MeshConfig, make_mesh
from modaltune_jax.types import Batch


def batch(*index: int) -> Batch:
    rows = np.asarray(index, np.int32)
    arrays = {name: np.zeros((len(rows), 1), np.float32) for name in Batch._fields}
    return Batch(**{**arrays, "index": rows, "features": rows[:, None].astype(np.float32)})


def test_every_case_lands_in_its_row():
    mesh = make_mesh(MeshConfig(data=1))
    step = lambda b: {  # noqa: E731
        "embedding": jnp.broadcast_to(b.features[:, :, None], (len(b.features), 3, 2)),
        "risk": -b.features[:, 0],
    }
    said = predict_cases(step, [batch(4, 1), batch(0, -1)], mesh, num_cases=6)
    np.testing.assert_array_equal(said["risk"], [0, -1, np.nan, np.nan, -4, np.nan])
    embeddings = said["embedding"]
    assert embeddings.shape == (6, 3, 2)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings[[0, 1, 4]], np.broadcast_to([[[0]], [[1]], [[4]]], (3, 3, 2)))
    assert np.isnan(embeddings[[2, 3, 5]]).all(), "cases of no batch, and filler writes nowhere"
