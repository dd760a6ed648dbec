"""Rasters of slides, cell by cell; pages of them as far as they exist."""

import dataclasses

import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideFacts
from modaltune_jax.inspection import tile_maps, tile_rasters
from modaltune_jax.inspection.inspection import look, worst_first
from modaltune_jax.inspection.slide_sources import Entry, SlideSource
from modaltune_jax.inspection.tile_rasters import Direction, draw_raster, fit_direction, sample_tiles
from modaltune_jax.types import Slide

ALONG_FIRST = Direction(np.zeros(2, np.float32), np.array([1, 0], np.float32), 0.0, 10.0)
PNG = b"\x89PNG\r\n\x1a\n"


def slide(cells: list[list[int]], values: list[float]) -> Slide:
    features = np.stack([np.array(values), np.arange(len(values))], axis=1).astype(np.float32)
    return Slide("S", features, 256 * np.array(cells, np.int32).reshape(-1, 2), 256)


def test_every_cell_has_the_colour_of_its_tile():
    raster = draw_raster(slide([[5, 7], [6, 7], [5, 9]], [0.0, 5.0, 10.0]), ALONG_FIRST)
    np.testing.assert_array_equal(raster.values, [[0.0, 0.5], [np.nan, np.nan], [1.0, np.nan]])
    assert not raster.is_shared.any()
    assert not raster.is_broken.any()


def test_values_beyond_the_scale_are_its_ends():
    raster = draw_raster(slide([[0, 0], [1, 0]], [-3.0, 99.0]), ALONG_FIRST)
    np.testing.assert_array_equal(raster.values, [[0.0, 1.0]])


def test_a_shared_cell_has_the_mean_and_is_marked():
    raster = draw_raster(slide([[0, 0], [0, 0], [1, 0]], [2.0, 4.0, 6.0]), ALONG_FIRST)
    np.testing.assert_allclose(raster.values, [[0.3, 0.6]], rtol=1e-6)
    np.testing.assert_array_equal(raster.is_shared, [[True, False]])


def test_broken_features_are_marked_and_have_no_colour():
    raster = draw_raster(slide([[0, 0], [1, 0], [1, 0]], [np.nan, np.inf, 6.0]), ALONG_FIRST)
    np.testing.assert_allclose(raster.values, [[np.nan, 0.6]], rtol=1e-6)
    np.testing.assert_array_equal(raster.is_broken, [[True, True]])


def test_a_grid_too_large_to_draw_has_several_cells_a_pixel(monkeypatch):
    monkeypatch.setattr(tile_rasters, "MAX_SIDE", 4)
    raster = draw_raster(slide([[0, 0], [1, 0], [9, 2]], [0.0, 10.0, 5.0]), ALONG_FIRST)
    assert raster.cells_per_pixel == 3
    np.testing.assert_array_equal(raster.values, [[0.5, np.nan, np.nan, 0.5]])
    assert not raster.is_shared.any(), "two cells in a pixel are not a cell with two tiles"


def test_the_direction_is_that_of_most_variance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3)) * [0.1, -5.0, 0.1] + 7
    direction = fit_direction(features.astype(np.float32))
    np.testing.assert_allclose(direction.axis, [0, 1, 0], atol=0.05)
    np.testing.assert_allclose(direction.mean, features.mean(axis=0), rtol=1e-5)
    assert direction.low < -5 < 5 < direction.high


@pytest.mark.parametrize(
    ("num_tiles", "wanted"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(2, [0, 1], id="few"),
        pytest.param(9, [0, 4, 8], id="many"),
    ],
)
def test_sampled_tiles_are_evenly_spaced(num_tiles, wanted):
    sample = sample_tiles(slide([[0, 0]] * num_tiles, [1.0] * num_tiles), 3)
    assert sample[:, 1].tolist() == wanted


def read(key: tuple[str, int]) -> tuple[Slide, SlideFacts]:
    kind, seed = key
    num_tiles = 0 if kind == "empty" else 20
    rng = np.random.default_rng(seed)
    cells = np.stack([np.arange(num_tiles) % 5, np.arange(num_tiles) // 5], axis=1)
    features = rng.normal(size=(num_tiles, 6 if kind == "wide" else 4)).astype(np.float16)
    if kind == "broken":
        features[:] = np.nan
    made = Slide(f"{kind}-{seed}", features, (cells * 256).astype(np.int32), 256)
    return made, SlideFacts(mpp=0.25 if kind == "scaled" else None)


@pytest.mark.parametrize(
    ("kinds", "num_pages"),
    [
        pytest.param(["plain"], 1, id="one slide"),
        pytest.param(["scaled", "empty", "broken", "wide"], 1, id="all kinds"),
        pytest.param(["empty"], 1, id="nothing to draw"),
        pytest.param(["plain"] * 8, 2, id="more than a page"),
        pytest.param(["plain"] * 20, 3, id="more than all pages"),
        pytest.param([], 0, id="no slides"),
    ],
)
def test_pages(tmp_path, monkeypatch, kinds, num_pages):
    monkeypatch.setattr(tile_maps, "PER_PAGE", 6)
    monkeypatch.setattr(tile_maps, "MAX_PAGES", 3)
    entries = tuple(Entry(kind, "", kind, "", (kind, seed)) for seed, kind in enumerate(kinds))
    source = SlideSource(entries, read)
    paths = tile_maps.draw_tile_maps(worst_first(look(source, workers=1)), source, tmp_path, workers=1)
    assert [path.name for path in paths] == [f"tile_maps_{i + 1}.png" for i in range(num_pages)]
    assert sorted(tmp_path.iterdir()) == paths
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 10_000


def test_noticed_slides_come_before_some_of_the_others(monkeypatch):
    monkeypatch.setattr(tile_maps, "PER_PAGE", 4)
    monkeypatch.setattr(tile_maps, "MAX_PAGES", 1)
    kinds = ["plain"] * 7 + ["broken"]
    entries = tuple(Entry(str(i), "", "", "", (kind, i)) for i, kind in enumerate(kinds))
    chosen = tile_maps._choose(worst_first(look(SlideSource(entries, read), workers=1)))
    assert [slide.entry.slide_id for slide in chosen] == ["7", "0", "3", "6"]


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        pytest.param(7.3, 5.0, id="5"),
        pytest.param(2.0, 2.0, id="exactly 2"),
        pytest.param(1.99, 1.0, id="1"),
        pytest.param(0.3, 0.2, id="below 1"),
        pytest.param(480.0, 200.0, id="hundreds"),
    ],
)
def test_scale_bars_have_round_lengths(length, wanted):
    assert tile_maps._round_below(length) == pytest.approx(wanted)


def test_a_raster_is_not_changed_by_where_the_slide_lies():
    near = slide([[0, 0], [1, 1]], [1.0, 2.0])
    far = dataclasses.replace(near, coords=near.coords + np.array([-1024, 99_840], np.int32))
    np.testing.assert_array_equal(draw_raster(near, ALONG_FIRST).values, draw_raster(far, ALONG_FIRST).values)
