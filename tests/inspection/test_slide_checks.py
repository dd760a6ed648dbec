"""Every defect that can be planted in a slide is found, and a clean slide has none."""

import dataclasses
import doctest

import ml_dtypes
import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideFacts
from modaltune_jax.inspection import slide_checks
from modaltune_jax.inspection.slide_checks import check_slide, spacing, unreadable
from modaltune_jax.types import Slide

SIDE = 12
NUM_TILES = SIDE * SIDE


def grid(step: int = 256, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    return (cells * step + origin).astype(np.int32)


def slide(coords: np.ndarray | None = None, dtype=np.float16, size: int = 256) -> Slide:
    features = np.random.default_rng(0).normal(size=(NUM_TILES, 8)).astype(dtype)
    return Slide("S1", features, grid() if coords is None else coords, size)


def with_rows(value: float, *rows: int, dtype=np.float16) -> Slide:
    made = slide(dtype=dtype)
    made.features[list(rows), 3] = value
    return made


def with_zeros(*rows: int) -> Slide:
    made = slide()
    made.features[list(rows)] = 0
    return made


def with_copies(*rows: int) -> Slide:
    made = slide()
    made.features[list(rows)] = made.features[0]
    return made


def appended_twice() -> Slide:
    half = slide()
    return dataclasses.replace(
        half, features=np.tile(half.features, (2, 1)), coords=np.tile(half.coords, (2, 1))
    )


def contours() -> np.ndarray:
    """Two pieces of tissue, the second of which has a grid of its own."""
    coords = grid()
    coords[NUM_TILES // 2 :] += (100, 20_060)
    return coords


@pytest.mark.parametrize(
    "clean",
    [
        pytest.param(slide(), id="float16"),
        pytest.param(slide(dtype=np.float32), id="float32"),
        pytest.param(slide(dtype=ml_dtypes.bfloat16), id="bfloat16"),
        pytest.param(slide(grid(origin=(1000, 77))), id="a grid that begins anywhere"),
        pytest.param(slide(grid(512), size=512), id="larger tiles"),
        pytest.param(slide(grid() + np.arange(NUM_TILES, dtype=np.int32)[:, None] % 2), id="rounded"),
    ],
)
def test_a_clean_slide_has_no_findings(clean):
    check = check_slide(clean, SlideFacts())
    assert (check.verdict, check.findings) == ("ok", ())
    assert (check.num_tiles, check.width, check.num_cells) == (NUM_TILES, 8, NUM_TILES)
    assert abs(check.spacing - clean.patch_size_level0) <= 1
    counts = ("shared", "off_grid", "negative", "beyond", "not_finite", "zero", "duplicate")
    assert [getattr(check, f"num_{name}") for name in counts] == [0] * len(counts)


@pytest.mark.parametrize(
    ("planted", "kind", "severity", "words", "counts"),
    [
        pytest.param(
            with_rows(np.nan, 3, 90),
            "not-finite",
            "bad",
            "2 of 144 tiles have NaN",
            {"not_finite": 2},
            id="NaN",
        ),
        pytest.param(
            with_rows(-np.inf, 3), "not-finite", "bad", "1 of 144 tiles has", {"not_finite": 1}, id="Inf"
        ),
        pytest.param(
            with_rows(np.inf, 7, dtype=ml_dtypes.bfloat16),
            *("not-finite", "bad", "1 of 144", {"not_finite": 1}),
            id="Inf in bfloat16",
        ),
        pytest.param(
            with_zeros(5, 6, 7), "zero-rows", "warning", "3 of 144", {"zero": 3, "duplicate": 0}, id="zeros"
        ),
        pytest.param(
            with_copies(5, 99),
            "duplicate-rows",
            "warning",
            "2 of 144",
            {"duplicate": 2, "zero": 0},
            id="copies",
        ),
        pytest.param(
            slide(grid(512)),
            "gaps",
            "warning",
            "one grid cell in 4 is used",
            {"shared": 0},
            id="half the size",
        ),
        pytest.param(
            slide(grid(512)),
            "gaps",
            "warning",
            "is --patch-size-level0 512?",
            {"off_grid": 0},
            id="what to give",
        ),
        pytest.param(
            slide(grid(384)),
            "gaps",
            "warning",
            "one grid cell in 2.3",
            {"off_grid": 108},
            id="no whole factor",
        ),
        pytest.param(
            slide(grid(128)),
            *(
                "overlap",
                "warning",
                "100 % of them share a cell; they overlap, or",
                {"shared": 144, "cells": 36},
            ),
            id="twice the size",
        ),
        pytest.param(
            slide(contours()),
            *("off-grid", "warning", "50 % of the tiles lie off the grid", {"off_grid": 72, "shared": 0}),
            id="a grid a contour",
        ),
        pytest.param(
            slide(np.vstack([grid()[:-9], grid()[:9]])),
            *("shared-cells", "warning", "18 of 144 tiles have a grid cell that another", {"shared": 18}),
            id="shared cells",
        ),
        pytest.param(
            slide(grid(origin=(-512, 0))),
            "negative",
            "warning",
            "24 of 144 tiles",
            {"negative": 24},
            id="negative",
        ),
        pytest.param(
            slide(grid(origin=(0, 989 * 256))),
            *("beyond", "warning", "8.4 % of the tiles lie beyond cell 999", {"beyond": 12}),
            id="beyond the last position",
        ),
    ],
)
def test_a_planted_defect_is_found(planted, kind, severity, words, counts):
    check = check_slide(planted, SlideFacts())
    assert [finding.kind for finding in check.findings] == [kind]
    assert (check.verdict, check.findings[0].severity) == (severity, severity)
    assert words in check.findings[0].message
    assert {name: getattr(check, f"num_{name}") for name in counts} == counts


def test_a_file_that_was_appended_to_shows_twice():
    check = check_slide(appended_twice(), SlideFacts())
    assert [finding.kind for finding in check.findings] == ["duplicate-rows", "shared-cells"]
    assert (check.num_duplicate, check.num_shared, check.num_cells) == (NUM_TILES, 2 * NUM_TILES, NUM_TILES)


def test_the_worst_finding_comes_first():
    made = with_zeros(1)
    made.features[2, 0] = np.nan
    check = check_slide(made, SlideFacts())
    assert [finding.severity for finding in check.findings] == ["bad", "warning"]


def test_a_slide_without_tiles():
    empty = Slide("S1", np.zeros((0, 8), np.float16), np.zeros((0, 2), np.int32), 256)
    check = check_slide(empty, SlideFacts())
    assert [finding.kind for finding in check.findings] == ["no-tiles"]
    assert (check.num_tiles, check.num_cells, check.spacing) == (0, 0, None)


def test_facts_and_place_are_kept():
    facts = SlideFacts("uni", 0.25, 20.0, "tile", "256 um")
    check = check_slide(slide(), facts, case_id="C", path="a/S1.h5", layout="trident")
    assert (check.encoder, check.mpp, check.magnification, check.frame, check.tile_size) == facts
    assert (check.slide_id, check.case_id, check.path, check.layout) == ("S1", "C", "a/S1.h5", "trident")


def test_what_cannot_be_read_is_bad():
    check = unreadable("S1", "S1.h5: is damaged", path="S1.h5", layout="clam")
    assert (check.verdict, check.num_tiles, check.findings[0].message) == ("bad", None, "S1.h5: is damaged")


@pytest.mark.parametrize(
    ("coords", "wanted"),
    [
        pytest.param([[0, 0]], None, id="one tile"),
        pytest.param([[0, 0], [0, 0]], None, id="one place"),
        pytest.param([[0, 0], [256, 300]], None, id="no common row or column"),
        pytest.param([[0, 7], [256, 7]], 256, id="a row"),
        pytest.param([[7, 512], [7, 0]], 512, id="a column, backwards"),
        pytest.param([[0, 0], [100, 0], [350, 0], [950, 0]], None, id="irregular"),
        pytest.param([[0, 0], [0, 0], [256, 0], [512, 0], [2048, 0]], 256, id="a gap and a tile twice"),
    ],
)
def test_spacing(coords, wanted):
    assert spacing(np.array(coords, np.int32)) == wanted


def test_long_slides_are_looked_at_in_parts(monkeypatch):
    monkeypatch.setattr(slide_checks, "_ROWS", 10)
    made = with_copies(5, 99)
    made.features[120] = 0
    made.features[[30, 140], 1] = np.nan
    check = check_slide(made, SlideFacts())
    assert (check.num_not_finite, check.num_zero, check.num_duplicate) == (2, 1, 2)


def test_doctests():
    assert doctest.testmod(slide_checks).attempted > 0
    assert doctest.testmod(slide_checks).failed == 0
