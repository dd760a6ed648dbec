"""Joining, subsampling, padding and bucketing of bags."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.bags import (
    Bag,
    bucket_of,
    buckets,
    grid_cells,
    join_slides,
    merge_cells,
    pad,
    padding_waste,
    subsample,
)
from modaltune_jax.types import InputError, Slide


def make_slide(coords, patch_size_level0=256, id="S", first=0):
    coords = np.asarray(coords, np.int32).reshape(-1, 2)
    features = first + np.arange(len(coords) * 3, dtype=np.float32).reshape(-1, 3)
    return Slide(id, features, coords, patch_size_level0)


def make_bag(num_tiles):
    rows = np.arange(num_tiles)
    return Bag(
        np.stack([rows, rows], 1).astype(np.float32) + 1, np.stack([rows, 2 * rows], 1).astype(np.int32)
    )


@pytest.mark.parametrize(
    ("size", "tile_size", "origin", "expected"),
    [
        pytest.param(256, None, "level0", [[2, 0], [2, 1], [3, 4]], id="own-size"),
        pytest.param(512, None, "level0", [[1, 0], [1, 0], [1, 2]], id="own-size-of-a-20x-slide"),
        pytest.param(512, 256, "level0", [[2, 0], [2, 1], [3, 4]], id="constant-overrides"),
        pytest.param(256, None, "slide", [[0, 0], [1, 1], [1, 4]], id="from-the-first-tile-as-titan"),
    ],
)
def test_cells(size, tile_size, origin, expected):
    slide = make_slide([(520, 10), (767, 256), (800, 1024)], size)
    if origin == "slide":
        slide = make_slide([(520, 10), (776, 266), (800, 1034)], size)
    np.testing.assert_array_equal(grid_cells(slide, tile_size, origin), expected)


def test_cells_left_of_the_origin_are_floored():
    np.testing.assert_array_equal(grid_cells(make_slide([(-1, -256), (-257, 0)])), [[-1, -1], [-2, 0]])


@pytest.mark.parametrize("size", [0, -256])
def test_cells_need_a_positive_size(size):
    with pytest.raises(InputError, match=rf"slide TCGA-1: tile size {size}"):
        grid_cells(make_slide([(0, 0)], size, id="TCGA-1"))


@pytest.mark.parametrize("setting", [{"layout": "piled"}, {"origin": "centre"}])
def test_unknown_layouts_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting.values()))):
        join_slides([make_slide([(0, 0)])], **setting)


def test_slides_are_stacked_cumulatively():
    # Columns 0..3, 0..1, 2..2: the third slide comes behind the first two, not behind the second alone.
    slides = [make_slide([(0, 0), (768, 0)]), make_slide([(0, 256), (256, 0)]), make_slide([(512, 0)])]
    bag = join_slides(slides)
    np.testing.assert_array_equal(bag.cells, [[0, 0], [3, 0], [4, 1], [5, 0], [8, 0]])
    np.testing.assert_array_equal(bag.features, np.concatenate([slide.features for slide in slides]))


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        # Shifts in pixels: 0, 1000 + 1500, 300 + 1500: less than the second, so that the third overlaps it.
        pytest.param("level0", [[0, 1], [1, 3], [0, 10], [0, 10], [0, 7]], id="level0"),
        # The smallest of all slides is (0, 256).
        pytest.param("slide", [[0, 0], [1, 2], [0, 9], [0, 9], [0, 6]], id="slide"),
    ],
)
def test_reference_layout(origin, expected):
    coords = [[(0, 256), (256, 1000)], [(0, 100), (0, 300)], [(0, 0)]]
    bag = join_slides([make_slide(xy) for xy in coords], layout="reference", origin=origin)
    np.testing.assert_array_equal(bag.cells, expected)


def test_reference_layout_of_slides_without_tiles():
    slides = [make_slide([]), make_slide([(0, 256)]), make_slide([]), make_slide([(0, 0)])]
    np.testing.assert_array_equal(join_slides(slides, layout="reference").cells, [[0, 1], [0, 6]])
    assert len(join_slides(slides[:1], layout="reference", origin="slide")) == 0


def test_own_frames_overlap():
    bag = join_slides([make_slide([(0, 256)]), make_slide([(0, 256)])], layout="own")
    np.testing.assert_array_equal(bag.cells, [[0, 1], [0, 1]])


@given(
    slides=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(-2000, 9000), st.integers(-2000, 9000)), max_size=12),
            st.sampled_from([256, 512, 1024]),
        ),
        min_size=1,
        max_size=5,
    ),
    origin=st.sampled_from(["level0", "slide"]),
)
@settings(deadline=None)
def test_stacked_slides_never_overlap(slides, origin):
    slides = [make_slide(coords, size) for coords, size in slides]
    bag = join_slides(slides, origin=origin)
    parts = np.split(bag.cells, np.cumsum([len(slide.coords) for slide in slides])[:-1])
    last = None
    for slide, part in zip(slides, parts, strict=True):
        own = grid_cells(slide, origin=origin)
        np.testing.assert_array_equal(part[:, 1], own[:, 1])
        np.testing.assert_array_equal(np.diff(part[:, 0]), np.diff(own[:, 0]))
        if len(part):
            assert last is None or part[:, 0].min() > last
            last = part[:, 0].max()


def test_a_case_without_slides_is_an_empty_bag():
    bag = join_slides([], feature_dim=5)
    assert (bag.features.shape, bag.cells.shape) == ((0, 5), (0, 2))


def test_slides_that_follow_each_other_in_memory_are_not_copied():
    features = np.arange(30, dtype=np.float32).reshape(10, 3)
    coords = np.zeros((10, 2), np.int32)
    cut = [(0, 4), (4, 4), (4, 9), (9, 10)]
    slides = [
        Slide(f"{i}", features[start:end], coords[start:end], 256) for i, (start, end) in enumerate(cut)
    ]
    bag = join_slides(slides, layout="own")
    assert np.shares_memory(bag.features, features)
    np.testing.assert_array_equal(bag.features, features)


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param([(0, 4), (5, 9)], id="gap"),
        pytest.param([(4, 9), (0, 4)], id="other-order"),
        pytest.param([(0, 5), (4, 9)], id="overlap"),
    ],
)
def test_slides_elsewhere_in_memory_are_joined_in_order(cut):
    features = np.arange(30, dtype=np.float32).reshape(10, 3)
    coords = np.zeros((10, 2), np.int32)
    slides = [
        Slide(f"{i}", features[start:end], coords[start:end], 256) for i, (start, end) in enumerate(cut)
    ]
    expected = np.concatenate([features[start:end] for start, end in cut])
    np.testing.assert_array_equal(join_slides(slides).features, expected)


@pytest.mark.parametrize("step", [pytest.param((1, 2), id="columns"), pytest.param((2, 1), id="rows")])
def test_slides_with_gaps_between_their_numbers_are_joined(step):
    features = np.arange(120, dtype=np.float32).reshape(20, 6)[:: step[0], :: step[1]]
    coords = np.zeros((4, 2), np.int32)
    slides = [Slide(f"{i}", features[4 * i : 4 * i + 4], coords, 256) for i in range(2)]
    np.testing.assert_array_equal(join_slides(slides).features, features[:8])


def test_slides_keep_their_dtype():
    slide = Slide("S", np.ones((2, 3), ml_dtypes.bfloat16), np.zeros((2, 2), np.int32), 256)
    assert join_slides([slide, slide]).features.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("max_tiles", [None, 7, 8], ids=["no-limit", "exactly", "above"])
def test_short_bags_are_kept_whole(max_tiles):
    bag = make_bag(7)
    assert subsample(bag, max_tiles, np.random.default_rng(0)) is bag


@given(num_tiles=st.integers(1, 300), max_tiles=st.integers(1, 300), seed=st.none() | st.integers(0, 99))
@settings(deadline=None)
def test_subsample_keeps_scan_order_and_rows_together(num_tiles, max_tiles, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    bag = subsample(make_bag(num_tiles), max_tiles, rng)
    rows = bag.cells[:, 0]
    assert len(bag) == min(num_tiles, max_tiles)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(bag.features[:, 0], rows + 1)
    np.testing.assert_array_equal(bag.cells[:, 1], 2 * rows)


def test_even_subsample_leaves_no_long_gap():
    rows = subsample(make_bag(1003), 100).cells[:, 0]
    assert set(np.diff(rows)) <= {10, 11}
    assert rows[0] <= 10
    assert rows[-1] >= 992


def test_random_subsample_reaches_every_tile():
    drawn = [subsample(make_bag(20), 5, np.random.default_rng(seed)).cells[:, 0] for seed in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert counts.min() > 20  # 50 expected, standard deviation 6
    assert counts.max() < 80


def test_tiles_that_share_a_cell_are_added():
    """Two tiles at (2, 0), three at (0, 1) of which two cancel, none but zeros at (1, 1), one at (1, 0)."""
    bag = Bag(
        np.array([[1, 10], [5, 0], [2, 20], [0, 0], [7, 1], [4, -3], [-7, -1]], np.float32),
        np.array([[2, 0], [0, 1], [2, 0], [1, 1], [0, 1], [1, 0], [0, 1]], np.int32),
    )
    merged = merge_cells(bag)
    np.testing.assert_array_equal(merged.cells, [[1, 0], [2, 0], [0, 1]])
    np.testing.assert_array_equal(merged.features, [[4, -3], [3, 30], [5, 0]])


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        pytest.param([[1.0], [-1.0]], np.zeros((0, 1)), id="tiles that cancel are background"),
        pytest.param([[0.0], [0.0]], np.zeros((0, 1)), id="all background"),
        pytest.param(np.zeros((0, 1)), np.zeros((0, 1)), id="no tiles"),
        pytest.param([[-2.0]], [[-2.0]], id="one tile"),
    ],
)
def test_background_cells_are_left_out(features, expected):
    features = np.array(features, np.float32)
    merged = merge_cells(Bag(features, np.full((len(features), 2), 3, np.int32)))
    np.testing.assert_array_equal(merged.features, expected)
    assert merged.cells.shape == (len(expected), 2)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_tiles_are_added_exactly(dtype):
    """60 000 + 60 000 is beyond float16, 256 + 1 + 1 and 2048 + 1 + 1 would lose their ones."""
    features = np.array([[256, 2048, 59392], [1, 1, 59392], [1, 1, 0]], dtype)
    merged = merge_cells(Bag(features, np.zeros((3, 2), np.int32)))
    assert merged.features.dtype == np.float32
    np.testing.assert_array_equal(merged.features, [[258, 2050, 118784]])


@given(num_tiles=st.integers(0, 60), side=st.integers(1, 9), seed=st.integers(0, 99))
@settings(deadline=None)
def test_merging_does_not_depend_on_the_order_of_tiles(num_tiles, side, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_tiles, 3)).astype(np.float32)
    cells = rng.integers(0, side, (num_tiles, 2), np.int32)
    merged = merge_cells(Bag(features, cells))
    order = rng.permutation(num_tiles)
    again = merge_cells(Bag(features[order], cells[order]))
    np.testing.assert_array_equal(again.features, merged.features)
    np.testing.assert_array_equal(again.cells, merged.cells)
    flat = merged.cells[:, 1] * side + merged.cells[:, 0]
    assert (np.diff(flat) > 0).all()
    sums = np.zeros((side, side, 3))
    np.add.at(sums, (cells[:, 1], cells[:, 0]), features.astype(np.float64))
    np.testing.assert_array_equal(merged.features, sums.reshape(-1, 3)[flat].astype(np.float32))
    assert len(flat) == sums.any(axis=-1).sum()


def test_padding_adds_zero_rows():
    bag = make_bag(3)
    padded = pad(bag, 5)
    np.testing.assert_array_equal(padded.features, np.concatenate([bag.features, np.zeros((2, 2))]))
    np.testing.assert_array_equal(padded.cells, np.concatenate([bag.cells, np.zeros((2, 2))]))


def test_padding_into_given_arrays_casts():
    out = Bag(np.full((4, 2), 9, np.float16), np.full((4, 2), 9, np.int32))
    pad(make_bag(2), 4, out)
    np.testing.assert_array_equal(out.features, [[1, 1], [2, 2], [0, 0], [0, 0]])
    assert not out.cells[2:].any()


def test_padding_a_bag_that_is_in_its_place():
    bag = make_bag(2)
    out = Bag(np.full((4, 2), 9, np.float32), np.full((4, 2), 9, np.int32))
    out.features[:2] = bag.features
    pad(Bag(out.features[:2], bag.cells), 4, out)
    np.testing.assert_array_equal(out.features, [[1, 1], [2, 2], [0, 0], [0, 0]])


def test_padding_never_cuts():
    with pytest.raises(ValueError, match="3 tiles does not fit into 2"):
        pad(make_bag(3), 2)


def fewest_rows(lengths, num_buckets, multiple):
    """Rows of the best choice of buckets, by trying all."""
    sizes = sorted({-(-(max(length, 1) + 1) // multiple) * multiple - 1 for length in lengths})
    choices = itertools.chain.from_iterable(
        itertools.combinations(sizes, k) for k in range(1, min(num_buckets, len(sizes)) + 1)
    )
    return min(
        sum(min(b for b in choice if b >= length) for length in lengths)
        for choice in choices
        if choice[-1] == sizes[-1]
    )


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=25),
    num_buckets=st.integers(1, 4),
    multiple=st.sampled_from([1, 2, 8]),
)
@settings(deadline=None)
def test_buckets_are_the_best_there_are(lengths, num_buckets, multiple):
    chosen = buckets(lengths, num_buckets=num_buckets, multiple=multiple)
    assert len(chosen) <= num_buckets
    assert list(chosen) == sorted(set(chosen))
    assert all(bucket > 0 and (bucket + 1) % multiple == 0 for bucket in chosen)
    assert sum(bucket_of(length, chosen) for length in lengths) == fewest_rows(lengths, num_buckets, multiple)


@pytest.mark.parametrize(
    ("lengths", "settings", "expected"),
    [
        pytest.param([5, 6, 100, 101], {"num_buckets": 2, "multiple": 1}, (6, 101), id="two-groups"),
        pytest.param([63], {"multiple": 64}, (63,), id="aligned-with-the-class-token"),
        pytest.param([64], {"multiple": 64}, (127,), id="one-tile-too-many"),
        pytest.param([0, 0], {"multiple": 64}, (63,), id="no-slides-anywhere"),
        pytest.param([0], {"multiple": 1}, (1,), id="a-tile-axis-is-kept"),
        pytest.param([10, 90_000], {"multiple": 1, "max_tiles": 500}, (10, 500), id="capped"),
        pytest.param([3, 3, 3], {"num_buckets": 8, "multiple": 1}, (3,), id="fewer-lengths-than-buckets"),
    ],
)
def test_buckets(lengths, settings, expected):
    assert buckets(lengths, **settings) == expected


@pytest.mark.parametrize(
    ("lengths", "settings"),
    [
        pytest.param([], {}, id="no-lengths"),
        pytest.param([3], {"num_buckets": 0}, id="no-buckets"),
        pytest.param([3], {"multiple": 0}, id="no-alignment"),
    ],
)
def test_buckets_refuse(lengths, settings):
    with pytest.raises(InputError):
        buckets(lengths, **settings)


@pytest.mark.parametrize(("length", "expected"), [(0, 15), (15, 15), (16, 31), (31, 31)])
def test_bucket_of(length, expected):
    assert bucket_of(length, (15, 31)) == expected


def test_bucket_of_too_long_a_bag():
    with pytest.raises(InputError, match="32 tiles"):
        bucket_of(32, (15, 31))


def test_padding_waste():
    assert padding_waste([10, 20, 35], (20, 30)) == pytest.approx(10 / 70)
    assert padding_waste(np.array([20, 30]), (20, 30)) == 0.0


@pytest.mark.parametrize("spacing", [np.linspace, np.geomspace])
def test_chosen_buckets_beat_spaced_ones(spacing):
    lengths = np.random.default_rng(0).lognormal(8.5, 0.8, 2000).astype(int)
    chosen = buckets(lengths, num_buckets=8, multiple=64, max_tiles=25_000)
    spaced = np.ceil(spacing(1000, 25_000, 8)).astype(int).tolist()
    assert len(chosen) == 8
    assert padding_waste(lengths, chosen) < 0.8 * padding_waste(lengths, spaced)
