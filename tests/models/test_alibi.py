import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.models.encoders.alibi import GridBias, distance_bias, head_slopes


@pytest.mark.parametrize(
    ("num_heads", "exponents"),
    [
        pytest.param(1, [8], id="one head"),
        pytest.param(8, [1, 2, 3, 4, 5, 6, 7, 8], id="a power of two"),
        pytest.param(16, np.arange(1, 17) / 2, id="a larger power of two"),
        pytest.param(3, [4, 8, 2], id="one more than a power of two"),
        pytest.param(12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5], id="as in TITAN"),
    ],
)
def test_slopes(num_heads, exponents):
    np.testing.assert_allclose(head_slopes(num_heads), 2.0 ** -np.asarray(exponents, float), rtol=1e-6)


def test_bias_of_a_triangle():
    """Sides 3, 4, 5; the first token has no cell, whatever is written in its place."""
    cells = jnp.asarray([[[9, 9], [1, -2], [4, -2], [4, 2]]])
    bias = GridBias(cells, jnp.asarray([[False, True, True, True]]), jnp.asarray([0.5, 2.0]))
    queries, keys = bias.places()
    expected = np.array([[0, 0, 0, 0], [0, 0, 3, 5], [0, 3, 0, 4], [0, 5, 4, 0]])
    for head, slope in enumerate((0.5, 2.0)):
        found = distance_bias(queries[:, :, head], keys[:, :, head])
        np.testing.assert_array_equal(found[0], -slope * expected)


def test_distances_far_from_the_origin_are_exact():
    """Rows of stacked slides are in the thousands; only their differences count."""
    near = jnp.asarray([[[0, 0], [30, 40]]])
    biases = []
    for cells in (near, near + 1_000_000):
        queries, keys = GridBias(cells, jnp.ones((1, 2), bool), jnp.asarray(head_slopes(12))).places()
        biases.append(distance_bias(queries[:, :, 8], keys[:, :, 8]))
    np.testing.assert_array_equal(*biases)
