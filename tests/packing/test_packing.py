"""Packing: nothing is lost or changed, whatever is wrong with the slides."""

import dataclasses
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.records import Records
from modaltune_jax.packing import packed_case
from modaltune_jax.packing.pack import Effort, pack
from modaltune_jax.packing.planned_case import Quarantined
from modaltune_jax.packing.verification import verify
from modaltune_jax.packing.work_folder import WorkFolder
from modaltune_jax.types import InputError
from tests.packing.packable import (
    ORIGIN,
    hashes,
    joined_of,
    reasons,
    write_slide,
)


def test_round_trip(folder, out):
    joined = joined_of(folder)
    packed = pack(joined, ORIGIN, out, Effort())
    assert packed is not None
    assert (packed.num_cases, packed.num_slides, packed.num_tiles) == (5, 7, 5 + 6 + 7 + 9 + 10 + 11 + 13)
    records = Records(out)
    assert records.variables == joined.variables
    for case, planned in zip(records, joined.cases, strict=True):
        assert (case.id, case.split, case.labels) == (planned.id, planned.split, planned.labels)
        assert dict(case.variables) == planned.variables
        assert (case.expression is None) == (planned.expression is None)
        if planned.expression is not None:
            np.testing.assert_array_equal(case.expression, planned.expression)
        assert [slide.id for slide in case.slides] == [slide.id for slide in planned.slides]
        for slide, file in zip(case.slides, planned.slides, strict=True):
            with np.load(file.path) as arrays:
                np.testing.assert_array_equal(slide.features, arrays["features"])
                np.testing.assert_array_equal(slide.coords, arrays["coords"])
            assert slide.features.dtype == np.float16
    assert len(list(out.glob("cases-train*"))) == 2
    assert not WorkFolder(out).root.exists()
    assert len(verify(out, with_sources=True).lines) == 4


def test_tensorflow_datasets_reads_what_was_packed(folder, out):
    import tensorflow_datasets as tfds

    pack(joined_of(folder), ORIGIN, out, Effort())
    source = tfds.builder_from_directory(str(out)).as_data_source("train")
    assert [source[i]["case_id"].decode() for i in range(len(source))] == ["P0", "P2", "P4"]
    with np.load(folder / "P4-0.npz") as arrays:
        np.testing.assert_array_equal(source[2]["features"], arrays["features"])
    assert source[2]["subtype"] == -1
    assert source[0]["expression"].tolist()[0] == 0.0


def test_several_processes_write_the_same_bytes(folder, out):
    pack(joined_of(folder), ORIGIN, out, Effort())
    pack(joined_of(folder), ORIGIN, Path("other"), Effort(workers=2, progress=True))
    assert hashes(out) == hashes(Path("other"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"width": 6}, "float16 [tiles, 6], but 6 of 7 slides have float16 [tiles, 4]", id="width"
        ),
        pytest.param({"dtype": np.float32}, "float32 [tiles, 4], but 6 of 7", id="dtype"),
        pytest.param({"features": np.full((5, 4), np.nan, np.float16)}, "tile 0 has NaN", id="nan"),
        pytest.param({"coords": np.zeros((3, 2), int)}, "coord", id="coords"),
    ],
)
@pytest.mark.parametrize("id", ["P2-0", "P1-0", "P3-0"])
def test_bad_slides_go_to_quarantine(folder, out, id, changes, reason):
    write_slide(folder, id, **changes)
    packed = pack(joined_of(folder), ORIGIN, out, Effort())
    assert packed is not None
    lines = reasons(out)
    assert id in lines[-1]
    assert reason in lines[-1]
    # P2 has another slide, P3 has its expression, P1 has nothing left.
    assert len(lines) == (2 if id == "P1-0" else 1)
    records = Records(out)
    assert records.num_cases == 5 - (id == "P1-0")
    assert all(id not in [slide.id for slide in case.slides] for case in records)
    assert packed.num_cases + packed.num_quarantined_cases == 5
    verify(out, with_sources=True)


KINDS = {
    "good": {},
    "empty": {"tiles": 0},
    "wide": {"width": 6},
    "nan": {"features": np.full((5, 4), np.nan, np.float16)},
    "truncated": {},
}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.lists(st.sampled_from(list(KINDS)), max_size=3), min_size=5, max_size=5).filter(any),
    with_expression=st.sets(st.integers(0, 4)),
)
def test_cases_in_are_cases_packed_and_cases_quarantined(folder, out, kinds, with_expression):
    for path in (folder, out, WorkFolder(out).root):
        shutil.rmtree(path, ignore_errors=True)
    for i, of_case in enumerate(kinds):
        for k, kind in enumerate(of_case):
            write_slide(folder, f"P{i}-{k}", **KINDS[kind])
            if kind == "truncated":
                os.truncate(folder / f"P{i}-{k}.npz", 200)
    ids = {f"P{i}" for i in range(5)}
    joined = joined_of(folder, tuple(with_expression))
    try:
        packed = pack(joined, ORIGIN, out, Effort())
    except InputError as error:
        assert "no case is left to pack" in str(error)  # noqa: PT017
        assert not with_expression
        return
    assert packed is not None
    quarantined = {line.case_id for line in packed.quarantined if not line.slide_id}
    bad = [line.slide_id for line in packed.quarantined if line.slide_id]
    records = Records(out)
    inside = [slide.id for case in records for slide in case.slides]
    assert set(records.table["case_id"]) | quarantined == ids
    assert not set(records.table["case_id"]) & quarantined
    assert {f"P{i}" for i in with_expression} <= set(records.table["case_id"])
    # Slides of cases that are left out are in neither list if nothing is wrong with them.
    lost = {slide.id for case in joined.cases if case.id in quarantined for slide in case.slides}
    assert sorted({*inside, *bad, *lost}) == sorted(
        slide.id for case in joined.cases for slide in case.slides
    )
    assert not set(inside) & {*bad, *lost}
    verify(out)


@pytest.mark.parametrize("with_expression", [(0,), (0, 1)])
def test_slides_without_tiles_are_kept_as_empty(folder, out, with_expression):
    write_slide(folder, "P1-0", tiles=0)
    write_slide(folder, "P2-0", tiles=0)
    pack(joined_of(folder, with_expression), ORIGIN, out, Effort())
    records = Records(out)
    cases = {case.id: case for case in records}
    assert [len(slide.features) for slide in cases["P2"].slides] == [0, 10]
    assert ("P1" in cases) == (1 in with_expression)
    if "P1" not in cases:
        assert reasons(out) == ['P1,,,"its slides have no tiles, and it has no expression"']
    verify(out)


def test_expression_alone(folder, out):
    joined = joined_of(folder, range(5))
    cases = tuple(dataclasses.replace(case, slides=()) for case in joined.cases)
    pack(dataclasses.replace(joined, cases=cases), ORIGIN, out, Effort())
    records = Records(out)
    assert (records.feature_dim, records.lengths.tolist()) == (0, [0] * 5)
    assert records[4].expression[0] == 4.0
    verify(out)


def test_slides_of_two_encoders(folder, out):
    for path in sorted(folder.iterdir()):
        write_slide(folder, path.stem, encoder="uni" if path.stem == "P0-1" else "gigapath")
    write_slide(folder, "P1-0")
    pack(joined_of(folder), ORIGIN, out, Effort())
    (line,) = reasons(out)
    assert line.startswith("P0,P0-1,")
    assert "encoder 'uni', but most slides have 'gigapath'" in line
    assert Records(out).encoder == "gigapath"


def test_links_that_lead_nowhere_go_to_quarantine(folder, out):
    (folder / "P1-1.npz").symlink_to("nowhere.npz")
    os.mkfifo(folder / "P1-2.npz")
    pack(joined_of(folder), ORIGIN, out, Effort())
    assert len(reasons(out)) == 1
    assert "P1-1.npz is a link to nowhere.npz, where nothing is" in reasons(out)[0]


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_places_without_a_name(folder, name):
    with pytest.raises(InputError, match="which has no name of its own"):
        pack(joined_of(folder), ORIGIN, Path(name), Effort())


def test_strict_stops_and_keeps_what_is_done(folder, out):
    write_slide(folder, "P3-0", features=np.full((5, 4), np.inf, np.float16))
    with pytest.raises(InputError, match=r"case P3, slide P3-0: .*NaN or infinite.*is kept"):
        pack(joined_of(folder), ORIGIN, out, Effort(is_strict=True))
    assert not out.exists()
    write_slide(folder, "P3-0")
    packed = pack(joined_of(folder), ORIGIN, out, Effort(is_strict=True))
    assert packed is not None
    assert packed.num_cases == 5


def test_strict_refuses_what_the_join_left_out(folder, out):
    joined = dataclasses.replace(
        joined_of(folder), quarantined=(Quarantined("P9", "", "", "is in no split"),)
    )
    with pytest.raises(InputError, match="case P9: is in no split"):
        pack(joined, ORIGIN, out, Effort(is_strict=True))


def without_splits(joined):
    return dataclasses.replace(
        joined, cases=tuple(dataclasses.replace(case, split="") for case in joined.cases)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(without_splits, "5 cases have no split .*--split RECIPE", id="splits"),
        pytest.param(
            lambda joined: dataclasses.replace(joined, gene_sets=GeneSets((), ())),
            "--gene-sets",
            id="gene-sets",
        ),
    ],
)
def test_what_is_missing_is_told_before_anything_is_read(folder, out, change, message):
    with pytest.raises(InputError, match=message):
        pack(change(joined_of(folder)), ORIGIN, out, Effort())
    assert not WorkFolder(out).root.exists()


def test_nothing_left(folder, out):
    for path in folder.iterdir():
        write_slide(folder, path.stem, features=np.full((5, 4), np.nan, np.float16))
    with pytest.raises(
        InputError, match=r"no case is left to pack; the first of 12 reasons: .*tile 0 has NaN"
    ):
        pack(joined_of(folder, ()), ORIGIN, out, Effort())
    assert not WorkFolder(out).root.exists()


def test_existing_records_are_not_replaced(folder, out):
    pack(joined_of(folder), ORIGIN, out, Effort())
    before = hashes(out)
    with pytest.raises(InputError, match="out exists already"):
        pack(joined_of(folder), ORIGIN, out, Effort())
    assert hashes(out) == before


def test_two_packs_to_one_place(folder, out):
    with WorkFolder(out).locked(), pytest.raises(InputError, match=f"being packed by process {os.getpid()}"):
        pack(joined_of(folder), ORIGIN, out, Effort())


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize(("row", "value"), [(None, 0.0), (0, np.nan), (999, -np.inf), (500, np.inf)])
def test_the_first_row_that_is_not_finite(dtype, row, value, monkeypatch):
    monkeypatch.setattr(packed_case, "_BLOCK_BYTES", 100)
    largest = ml_dtypes.finfo(dtype).max
    features = np.full((1000, 3), largest, np.float32).astype(dtype)
    if row is not None:
        features[row:, 1] = value
    assert packed_case._first_not_finite(features) == row
