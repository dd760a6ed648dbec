"""STAMP's files: micrometres, and the grid on which tiles were cut."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modaltune_jax.inputs.bags import grid_cells
from modaltune_jax.inputs.readers import stamp
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import TileArrays
from modaltune_jax.inputs.slide_files import read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff

CELLS = np.array([[0, 0], [1, 0], [3, 2], [60, 199], [117, 90]])
FEATURES = ff.bag(dtype=np.float16)[0]


def read(path, **options):
    return read_slide(SlideFile("a", "stamp", path), SlideOptions(**options))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


@pytest.mark.parametrize("mpp", [0.25, 0.2527, 0.5, 0.5023, 0.499, 1.0])
def test_cells_are_exact_with_and_without_mpp(path, mpp):
    ff.write_stamp(path, FEATURES, ff.stamp_coords(CELLS, mpp))
    slide, facts = read(path)
    np.testing.assert_array_equal(slide.features, FEATURES, strict=True)
    np.testing.assert_array_equal(slide.coords, (CELLS * 224).astype(np.int32), strict=True)
    assert slide.patch_size_level0 == 224
    assert facts == ("uni2", None, None, "tile", "256 um")
    slide, facts = read(path, mpp=mpp)
    size = math.ceil(256 / mpp)
    np.testing.assert_array_equal(slide.coords, (CELLS * size).astype(np.int32), strict=True)
    assert slide.patch_size_level0 == size
    assert facts == ("uni2", mpp, None, "level0", "256 um")


@given(
    cells=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150)), min_size=1, max_size=8),
    mpp=st.floats(0.2, 1.1),
    tile_um=st.floats(100, 600),
)
def test_no_slide_moves_a_tile_into_another_cell(cells, mpp, tile_um):
    stored = TileArrays(None, ff.stamp_coords(np.array(cells), mpp, tile_um), {})
    pixels, size, frame = stamp._place(Path("a.h5"), stored, tile_um, SlideOptions(mpp=mpp))
    assert (size, frame) == (math.ceil(tile_um / mpp), "level0")
    np.testing.assert_array_equal(pixels, np.array(cells) * size)
    pixels, size, frame = stamp._place(Path("a.h5"), stored, tile_um, SlideOptions())
    found = np.floor_divide(pixels, size)
    # Far from the corner the drift may come to a whole cell, which then stays empty; tiles never share one.
    assert np.all((found == cells) | (found == np.array(cells) + 1))
    assert len({*map(tuple, found.tolist())}) == len({*cells})
    assert (size, frame) == (round(tile_um), "tile")


def test_version_2_0_knew_no_pixels(path):
    coords = ff.stamp_coords(CELLS, 0.25)
    ff.write_stamp(
        path, FEATURES, coords, tile_size=256.0, tile_size_um=None, tile_size_px=None, feat_type=None
    )
    slide, facts = read(path)
    np.testing.assert_array_equal(grid_cells(slide), CELLS)
    assert (slide.patch_size_level0, facts.frame, facts.tile_size) == (256, "tile", "256 um")


def test_the_size_at_level_0_may_be_given_in_place_of_mpp(path):
    ff.write_stamp(path, FEATURES, ff.stamp_coords(CELLS, 0.2527))
    slide, facts = read(path, patch_size_level0=1014)
    np.testing.assert_array_equal(slide.coords, CELLS * 1014)
    assert (slide.patch_size_level0, facts.frame) == (1014, "level0")
    assert read(path, patch_size_level0=1014, mpp=0.2527)[0].patch_size_level0 == 1014


def test_an_mpp_of_another_slide(path):
    # On a slide this wide it shows.
    ff.write_stamp(path, FEATURES[:2], ff.stamp_coords(np.array([[0, 0], [140, 3]]), 0.499))
    assert grid_cells(read(path, mpp=0.499)[0]).tolist() == [[0, 0], [140, 3]]
    text = (
        "with this --mpp, tile 1 lies 0.27 tiles off STAMP's grid of 512 pixels; give the exact mpp of this"
    )
    with pytest.raises(InputError, match=text):
        read(path, mpp=0.5)


def test_version_1_counts_pixels_of_tiles(path):
    # It wrote neither unit nor size.
    ff.write_stamp(path, FEATURES, (CELLS * 224).astype(np.int64), **dict.fromkeys(
        ("unit", "tile_size_um", "tile_size_px", "feat_type", "stamp_version")
    ))  # fmt: skip
    with pytest.raises(
        InputError, match="does not say what its coordinates count; say it with --coords-unit"
    ):
        read(path)
    slide, _ = read(path, coords_unit="level0", patch_size_level0=224)
    np.testing.assert_array_equal(grid_cells(slide), CELLS)
    with pytest.raises(
        InputError, match=r"no attribute tile_size_um; extract the slide again with STAMP 2.0"
    ):
        read(path, coords_unit="um")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            {"coords_unit": "level0"}, "has coords_unit um while --coords-unit is level0", id="unit"
        ),
        pytest.param({"encoder": "conch"}, "has extractor uni2 while --encoder is conch", id="encoder"),
        pytest.param(
            {"mpp": 0.2527, "patch_size_level0": 512},
            "of 256 um, which are 1014 pixels with --mpp 0.2527 while --patch-size-level0 is 512; leave",
            id="mpp and size",
        ),
    ],
)
def test_options_that_contradict_the_file(path, options, words):
    ff.write_stamp(path, FEATURES, ff.stamp_coords(CELLS, 0.2527))
    with pytest.raises(InputError, match=words):
        read(path, **options)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"feat_type": "slide"}, "has features of a slide; give those of tiles", id="of slides"),
        pytest.param({"unit": "mm"}, "coords_unit is 'mm'; correct it in the file", id="unit"),
        pytest.param(
            {"tile_size_um": "256"}, "tile_size_um is '256', which is no positive number", id="text"
        ),
        pytest.param(
            {"tile_size_um": 0.0}, "tile_size_um is .*0.0.*, which is no positive number", id="zero"
        ),
        pytest.param({"tile_size_px": 224.5}, "tile_size_px is 224.5, which is no whole number", id="half"),
        pytest.param({"extractor": 3}, "extractor is 3, which is no text", id="number"),
    ],
)
def test_attributes_of_a_wrong_kind(path, changed, words):
    ff.write_stamp(path, FEATURES, ff.stamp_coords(CELLS, 0.25), **changed)
    with pytest.raises(InputError, match=words):
        read(path)


def test_coordinates_that_are_none(path):
    coords = ff.stamp_coords(CELLS, 0.25)
    coords[3, 1] = np.nan
    ff.write_stamp(path, FEATURES, coords)
    with pytest.raises(InputError, match=r"not finite, the first in tile 3: \[15360.0, nan\]"):
        read(path)
    with h5py.File(path, "a") as file:
        del file["coords"]
    with pytest.raises(InputError, match=r"a.h5 has no coordinates"):
        read(path)


def test_a_slide_without_tiles(path):
    ff.write_stamp(path, FEATURES[:0], np.zeros((0, 2), np.float32))
    for options in ({}, {"mpp": 0.25}):
        slide, _ = read(path, **options)
        np.testing.assert_array_equal(slide.coords, np.zeros((0, 2), np.int32), strict=True)
