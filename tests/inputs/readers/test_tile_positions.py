"""Coordinates in all units, and those that are none."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modaltune_jax.inputs.readers import positions
from modaltune_jax.inputs.readers.positions import check_coords, level0_pixels, pixels_of
from modaltune_jax.types import InputError

PATH = Path("folder/a.h5")


def test_doctests():
    result = doctest.testmod(positions)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.uint64, np.float32, np.float64, ">i8"])
def test_pixels_of_any_type(dtype):
    stored = np.array([[0, 512], [1024, 60000]], dtype)
    found = level0_pixels(PATH, check_coords(PATH, stored), "level0", 512, None)
    np.testing.assert_array_equal(found, np.array([[0, 512], [1024, 60000]], np.int32), strict=True)


def test_columns_and_rows():
    found = level0_pixels(PATH, np.array([[0, 1], [3, 2]]), "grid", 512, None)
    assert found.tolist() == [[0, 512], [1536, 1024]]
    with pytest.raises(
        InputError, match=r"beyond what 32 bits can hold, the first in tile 0: \[51200000000.0"
    ):
        level0_pixels(PATH, np.array([[10**8, 1]]), "grid", 512, None)


def test_micrometres():
    found = level0_pixels(PATH, np.array([[0, 128], [256.0, 100]], np.float32), "um", 512, 0.25)
    assert found.tolist() == [[0, 512], [1024, 400]]
    with pytest.raises(InputError, match="in micrometres; give the micrometres per level-0 pixel with --mpp"):
        level0_pixels(PATH, np.array([[0, 1]]), "um", 512, None)


@given(
    cell=st.integers(0, 1000),
    size=st.integers(1, 4096),
    tile_um=st.floats(10, 2000),
    part=st.one_of(st.just(0.0), st.floats(0, 0.99)),
)
def test_rounding_moves_no_tile_into_another_cell(cell, size, tile_um, part):
    stored = np.array([[cell * tile_um, (cell + part) * tile_um]], np.float32)
    pixels = pixels_of(stored.astype(np.float64) / tile_um, size)
    assert np.floor_divide(pixels, size).tolist() == [[cell, cell]]
    assert pixels[0, 0] == cell * size
    assert abs(pixels[0, 1] - (cell + part) * size) <= 1 + 1e-3 * size


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        pytest.param(None, "no coordinates; extract the slide again with a tool", id="none"),
        pytest.param(np.array([["1", "2"]]), "of type text; store them as int64", id="text"),
        pytest.param(np.array([[b"1", b"2"]]), "of type text; store them as int64", id="bytes"),
        pytest.param(np.array([["1", "2"]], object), "of type text; store them as int64", id="HDF5 text"),
        pytest.param(np.ones((1, 2), bool), "of type bool", id="truth"),
        pytest.param(np.ones((1, 2), np.float16), "of type float16", id="half precision"),
        pytest.param(np.ones((2, 3)), r"of shape \(2, 3\), which is not \[tiles, 2\]", id="three axes"),
        pytest.param(np.ones(2), r"of shape \(2,\)", id="one tile without its axis"),
        pytest.param(
            np.array([[0, 0], [1, np.nan]]), r"not finite, the first in tile 1: \[1.0, nan\]", id="NaN"
        ),
        pytest.param(np.array([[np.inf, 0]]), "not finite, the first in tile 0", id="infinite"),
        pytest.param(np.array([[0, 0], [5, -1]]), r"negative, the first in tile 1: \[5, -1\]", id="negative"),
    ],
)
def test_coordinates_that_are_none(stored, words):
    with pytest.raises(InputError, match=words) as error:
        check_coords(PATH, stored)
    assert str(error.value).startswith("folder/a.h5 has ")


@pytest.mark.parametrize(
    ("coords", "words"),
    [
        pytest.param([[0, 0.5]], r"no whole numbers, the first in tile 0: \[0.0, 0.5\]; say what", id="half"),
        pytest.param(np.array([[0, 2**31]], np.int64), "beyond what 32 bits can hold", id="integer"),
        pytest.param(np.array([[0, 2**31]], np.float32), "beyond what 32 bits can hold", id="float32"),
        pytest.param(np.array([[0, 2**64 - 1]], np.uint64), "beyond what 32 bits can hold", id="unsigned"),
    ],
)
def test_coordinates_that_are_no_pixels(coords, words):
    with pytest.raises(InputError, match=words):
        level0_pixels(PATH, check_coords(PATH, np.asarray(coords)), "level0", 256, None)


def test_a_batch_of_one_and_nothing():
    assert check_coords(PATH, np.ones((1, 5, 2))).shape == (5, 2)
    assert check_coords(PATH, np.zeros(0)).shape == (0, 2)
    assert check_coords(PATH, np.zeros((1, 0, 2))).shape == (0, 2)
