"""Packing: nothing is lost, changed or done twice, whatever is wrong with the slides and whenever it dies."""

import dataclasses
import hashlib
import os
import shutil
import signal
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.barcodes import case_rule
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.slide_files import find_slides
from modaltune_jax.inputs.storage import tfds_writer
from modaltune_jax.packing import pack as packing
from modaltune_jax.packing import packed_case, shards
from modaltune_jax.packing.join import Joined
from modaltune_jax.packing.pack import Effort, Origin, pack
from modaltune_jax.packing.planned_case import PlannedCase, Quarantined
from modaltune_jax.packing.process_pool import Lost, map_unordered
from modaltune_jax.packing.verification import verify
from modaltune_jax.packing.work_folder import WorkFolder
from modaltune_jax.types import InputError, Labels
from tests import feature_files as ff

SPEC = CohortSpec("brca", "Breast", "breast", classes=("ductal",), diagnoses={"duct carcinoma": 0})
SPLITS = ("train", "val", "train", "test", "train")
OPTIONS = SlideOptions(layout="arrays", coords_unit="level0", patch_size_level0=256)


def write_slide(folder: Path, id: str, tiles: int = 5, width: int = 4, dtype=np.float16, **arrays) -> None:
    generator = np.random.default_rng(list(id.encode()))
    entries = {
        "features": generator.standard_normal((tiles, width)).astype(dtype),
        "coords": 256 * np.stack([np.arange(tiles), np.arange(tiles)], axis=1),
    }
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{id}.npz", **(entries | arrays))


def write_slides(folder: Path) -> None:
    """Two slides of cases P0 and P2, one of P1, P3 and P4."""
    for i in range(5):
        for k in range(1 + (i in (0, 2))):
            write_slide(folder, f"P{i}-{k}", tiles=5 + 2 * i + k)


def joined_of(folder: Path, with_expression=(0, 3), options=OPTIONS) -> Joined:
    """Cases P0 to P4 with the slides that there are in a folder."""
    rule = case_rule(r"(P\d)")
    slides = find_slides(folder, options)
    cases = [
        PlannedCase(
            id=f"P{i}",
            site="brca",
            split=split,
            slides=tuple(slide for slide in slides if rule(slide.id) == f"P{i}"),
            labels=Labels(time=1.5 * i, event=i % 2, age=50.0, stage="Stage II"),
            variables={"sex": "male", "ki67": 0.1 * i},
            expression=np.array([i, np.nan], np.float32) if i in with_expression else None,
        )
        for i, split in enumerate(SPLITS)
    ]
    gene_sets = GeneSets(("one",), (np.array([0, 1], np.int32),))
    return Joined(tuple(cases), (), (), ("A", "B"), gene_sets, {"sex": "category", "ki67": "number"})


ORIGIN = Origin((SPEC,), OPTIONS, (), {"cohort": ["brca"]}, "by hand")


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Slides in `features`, from which the paths in the documents begin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds_writer, "SHARD_BYTES", 1000)
    write_slides(Path("features"))
    return Path("features")


@pytest.fixture
def out():
    return Path("out")


def reasons(out: Path) -> list[str]:
    return out.joinpath("quarantine.csv").read_text().splitlines()[1:]


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


class Killed(BaseException):
    """What stands for the end of the process."""


def die(*args):
    raise Killed


class Life:
    """Ends at the n-th change of the disk: that one and all later ones do not happen."""

    _NAMES = ("replace", "rename", "write", "unlink", "mkdir", "fsync", "open", "rmdir")

    def __init__(self, monkeypatch, length: int):
        self.left = length
        for name in self._NAMES:
            monkeypatch.setattr(os, name, self._mortal(getattr(os, name)))
        # shutil.rmtree and pathlib hold on to some of the functions.
        monkeypatch.setattr(shards, "open_shard", self._mortal(shards.open_shard))
        monkeypatch.setattr(packing, "write_sidecars", self._mortal(packing.write_sidecars))
        monkeypatch.setattr(packing, "write_documents", self._mortal(packing.write_documents))

    def _mortal(self, function):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return function(*args, **kwargs)

        return call


def test_killed_at_any_moment_and_run_again_equals_an_undisturbed_run(folder, out, monkeypatch):
    pack(joined_of(folder), ORIGIN, out, Effort())
    expected = hashes(out)
    shutil.rmtree(out)
    num_kills = 0
    for length in range(0, 1000, 16):
        with monkeypatch.context() as patch:
            life = Life(patch, length)
            try:
                pack(joined_of(folder), ORIGIN, out, Effort())
            except Killed:
                num_kills += 1
        if life.left >= 0:
            break
        for _ in range(2):
            if not out.exists() or WorkFolder(out).root.exists():
                pack(joined_of(folder), ORIGIN, out, Effort())
        assert hashes(out) == expected
        assert not WorkFolder(out).root.exists()
        shutil.rmtree(out)
    assert num_kills > 6


def test_a_second_run_does_only_what_is_left(folder, out, monkeypatch):
    done = []
    monkeypatch.setattr(
        packing, "pack_case", lambda task: done.append(task.case.id) or packed_case.pack_case(task)
    )
    monkeypatch.setattr(packing, "write_shard", die)
    with pytest.raises(Killed):
        pack(joined_of(folder), ORIGIN, out, Effort())
    assert sorted(done) == [f"P{i}" for i in range(5)]
    done.clear()
    write_slide(folder, "P1-0", tiles=33)
    changed = dataclasses.replace(joined_of(folder).cases[4], labels=Labels(age=3.0))
    joined = dataclasses.replace(joined_of(folder), cases=(*joined_of(folder).cases[:4], changed))
    monkeypatch.setattr(packing, "write_shard", shards.write_shard)
    pack(joined, ORIGIN, out, Effort())
    assert sorted(done) == ["P1", "P4"]
    assert Records(out).lengths.tolist() == [11, 33, 19, 11, 13]
    assert Records(out).labels(4).age == 3.0


def test_cases_of_a_finished_file_that_no_longer_fits_are_packed_again(folder, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_sidecars", die)
        with pytest.raises(Killed):
            pack(joined_of(folder), ORIGIN, out, Effort())
    assert list(WorkFolder(out).cases.glob("*.record")) == []
    write_slide(folder, "P0-0", tiles=44)
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out, with_sources=True)
    assert Records(out).lengths.tolist() == [50, 7, 19, 11, 13]


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


@pytest.mark.parametrize("content", ["", "[1, 2", "[[[1]], [], 0, 0]"])
def test_damaged_verdicts_are_made_again(folder, out, monkeypatch, content):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_shard", die)
        with pytest.raises(Killed):
            pack(joined_of(folder), ORIGIN, out, Effort())
    for path in WorkFolder(out).cases.glob("*.json"):
        path.write_text(content)
    pack(joined_of(folder), ORIGIN, out, Effort())
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


def test_a_share_that_drops_out_stops_the_pack_and_is_no_verdict(folder, out, monkeypatch):
    joined = joined_of(folder)
    read_slide = packed_case.read_slide

    def gone(file, options):
        if file.id == "P2-0":
            folder.rename("gone")
        return read_slide(file, options)

    with monkeypatch.context() as patch:
        patch.setattr(packed_case, "read_slide", gone)
        with pytest.raises(InputError, match=r"cannot be reached any more \(No such file.*mend that"):
            pack(joined, ORIGIN, out, Effort())
    Path("gone").rename(folder)
    pack(joined, ORIGIN, out, Effort())
    assert reasons(out) == []


def test_links_that_lead_nowhere_go_to_quarantine(folder, out):
    (folder / "P1-1.npz").symlink_to("nowhere.npz")
    os.mkfifo(folder / "P1-2.npz")
    pack(joined_of(folder), ORIGIN, out, Effort())
    assert len(reasons(out)) == 1
    assert "P1-1.npz is a link to nowhere.npz, where nothing is" in reasons(out)[0]


def test_faults_are_looked_at_again(folder, out, monkeypatch):
    def locked(file, options):
        raise InputError(f"{file.path} is locked")

    with monkeypatch.context() as patch:
        patch.setattr(packed_case, "read_slide", locked)
        with pytest.raises(InputError, match=r"P\d-0.npz is locked"):
            pack(joined_of(folder), ORIGIN, out, Effort(is_strict=True))
    pack(joined_of(folder), ORIGIN, out, Effort(is_strict=True))
    assert reasons(out) == []


def test_a_want_of_memory_is_no_verdict(folder, out, monkeypatch):
    def large(file, options):
        np.empty(1 << 45)

    monkeypatch.setattr(packed_case, "read_slide", large)
    with pytest.raises(InputError, match=r"case P\d: there is not enough memory for its"):
        pack(joined_of(folder), ORIGIN, out, Effort())


def test_a_full_disk_is_told_while_files_are_put_together(folder, out, monkeypatch):
    def full(*args):
        raise RuntimeError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "open_shard", full)
        with pytest.raises(InputError, match=r"No space left on device.*make room"):
            pack(joined_of(folder), ORIGIN, out, Effort())
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


def test_a_finished_file_that_was_cut_is_written_again(folder, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_sidecars", die)
        with pytest.raises(Killed):
            pack(joined_of(folder), ORIGIN, out, Effort())
    for path in WorkFolder(out).records.iterdir():
        os.truncate(path, 100)
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_places_without_a_name(folder, name):
    with pytest.raises(InputError, match="which has no name of its own"):
        pack(joined_of(folder), ORIGIN, Path(name), Effort())


def test_damaged_records_are_told_and_made_again(folder, out, monkeypatch):
    monkeypatch.setattr(packing, "write_shard", die)
    with pytest.raises(Killed):
        pack(joined_of(folder), ORIGIN, out, Effort())
    monkeypatch.setattr(packing, "write_shard", shards.write_shard)
    path = max(WorkFolder(out).cases.glob("*.record"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"case P\d: .* is not as it was written"):
        pack(joined_of(folder), ORIGIN, out, Effort())
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


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


def test_a_full_disk_is_told(folder, out, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InputError, match=r"No space left on device.*goes on where"):
            pack(joined_of(folder), ORIGIN, out, Effort())
    assert list(WorkFolder(out).cases.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize(("row", "value"), [(None, 0.0), (0, np.nan), (999, -np.inf), (500, np.inf)])
def test_the_first_row_that_is_not_finite(dtype, row, value, monkeypatch):
    monkeypatch.setattr(packed_case, "_BLOCK_BYTES", 100)
    largest = ml_dtypes.finfo(dtype).max
    features = np.full((1000, 3), largest, np.float32).astype(dtype)
    if row is not None:
        features[row:, 1] = value
    assert packed_case._first_not_finite(features) == row


def end(how: str) -> str:
    """A task that ends its process, or does not end."""
    if how == "loop":
        while True:
            pass
    if how != "well":
        os.kill(os.getpid(), getattr(signal, how))
    return how


def test_tasks_that_take_their_process_down_are_known():
    tasks = ["well", "SIGSEGV", "loop", "well"]
    results = list(map_unordered(end, tasks, 2, str, lambda how: 1 if how == "loop" else 60))
    assert sorted(results, key=str) == [
        ("SIGSEGV", Lost("crashes the process that reads it (SIGSEGV)")),
        ("loop", Lost("keeps a process busy without end")),
        ("well", "well"),
        ("well", "well"),
    ]


def test_a_killed_process_is_told_with_its_task():
    with pytest.raises(InputError, match=r"want of memory, while at work on SIGKILL; .* a machine with more"):
        list(map_unordered(end, ["SIGKILL"], 1, str))


def test_files_that_crash_the_library_go_to_quarantine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        path = ff.write_trident(Path(f"f/P{i}-0.h5"), *ff.bag(60, 8, np.float16))
    content = bytearray(path.read_bytes())
    # The type of an attribute, by which HDF5 takes its text for something else.
    content[content.index(b"encoder\0\x19\x01") + 9] = 44
    path.write_bytes(content)
    joined = joined_of(Path("f"), (), SlideOptions())
    joined = dataclasses.replace(joined, cases=joined.cases[:3])
    origin = Origin((SPEC,), SlideOptions(), (), {}, "by hand")
    pack(joined, origin, Path("out"), Effort(workers=1))
    assert [line.partition(",")[0] for line in reasons(Path("out"))] == ["P2", "P2"]
