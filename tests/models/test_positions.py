import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.models.encoders.positions import grid_positions


def expected(cells, width, num_grids):
    flat = cells[..., 0].astype(np.int64) * num_grids + cells[..., 1]
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    parts = []
    for index in (flat % num_grids, flat // num_grids):
        angle = index[..., None] * frequency
        parts += [np.sin(angle), np.cos(angle)]
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([[0, 0], [1, 0], [0, 1]], id="origin"),
        pytest.param([[999, 999], [512, 777], [3, 998]], id="end of the published grid"),
        pytest.param([[0, 1000], [17, 2345], [998, 1001]], id="runs on into the next row"),
        pytest.param([[1000, 0], [2500, 4], [4000, 999]], id="beyond the published table"),
    ],
)
@pytest.mark.parametrize("width", [8, 768])
def test_equals_float64(cells, width):
    cells = np.asarray([cells], np.int32)
    ours = jax.jit(grid_positions, static_argnums=(1, 2))(jnp.asarray(cells), width, 1000)
    np.testing.assert_allclose(ours, expected(cells, width, 1000), rtol=0, atol=4e-6)


def test_within_the_grid_as_good_as_rounding_the_exact_value():
    axis = np.arange(1000, dtype=np.int32)
    cells = np.stack([axis, axis[::-1]], axis=-1)[None]
    ours = grid_positions(jnp.asarray(cells), 768, 1000)
    np.testing.assert_allclose(ours, expected(cells, 768, 1000), rtol=0, atol=1e-6)
