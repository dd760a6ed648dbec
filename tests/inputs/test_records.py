"""Writing and reading records."""

import dataclasses
import json
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.records import Records, write
from modaltune_jax.inputs.storage import examples, tfds_writer
from modaltune_jax.types import Case, InputError, Labels, Slide

GENES = ("TP53", "EGFR", "MYC")
GENE_SETS = GeneSets(("A", "EMPTY"), (np.array([0, 2], np.int32), np.zeros(0, np.int32)))
SPECS = (
    CohortSpec("brca", "Breast", "breast", ("TCGA-BRCA",), ("ductal", "lobular"), {"ductal carcinoma": 0}),
    CohortSpec("nsclc", "Lung", "lung", synonyms={"adenocarcinoma": "acinar adenocarcinoma"}),
)


def make_slide(id, num_tiles, width=4, dtype=np.float16, patch_size_level0=512):
    rng = np.random.default_rng(num_tiles)
    features = rng.normal(size=(num_tiles, width)).astype(dtype)
    return Slide(id, features, rng.integers(0, 9999, (num_tiles, 2)).astype(np.int32), patch_size_level0)


def make_cases(dtype=np.float16):
    labels = Labels("ductal carcinoma", 0, 12.1, 1, "Stage IIA", "T2", "N0", "M0", 51.7)
    expression = np.array([1.5, np.nan, -2.0], np.float32)
    return [
        Case("A", "brca", "train", (), None, Labels()),
        Case("B", "brca", "train", (make_slide("B-1", 5, dtype=dtype),), expression, labels),
        Case(
            "C",
            "nsclc",
            "test",
            tuple(make_slide(f"C-{n}", n, 4, dtype, 256) for n in (3, 0, 7)),
            None,
            labels,
        ),
        Case("D-é", "nsclc", "train", (make_slide("D", 0, dtype=dtype),), expression * 2, Labels(time=1 / 3)),
    ]


def write_cases(directory, cases, **changes):
    fixed = {"genes": GENES, "gene_sets": GENE_SETS, "specs": SPECS, "source": "test", "encoder": "none"}
    write(directory, cases, **fixed | changes)
    return Records(directory)


def assert_same(case, expected):
    assert repr(case.labels) == repr(expected.labels)  # NaN equals NaN, and every digit counts
    assert (case.id, case.site, case.split) == (expected.id, expected.site, expected.split)
    if expected.expression is None:
        assert case.expression is None
    else:
        np.testing.assert_array_equal(case.expression, expected.expression)
    for slide, wanted in zip(case.slides, expected.slides, strict=True):
        assert (slide.id, slide.patch_size_level0) == (wanted.id, wanted.patch_size_level0)
        assert slide.features.dtype == wanted.features.dtype
        np.testing.assert_array_equal(slide.features, wanted.features)
        np.testing.assert_array_equal(slide.coords, wanted.coords)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("records") / "four", make_cases())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_cases_come_back_to_the_last_bit(tmp_path, dtype):
    cases = make_cases(dtype)
    records = write_cases(tmp_path / "r", iter(cases))
    assert len(records) == records.num_cases == 4
    for case, expected in zip(records, cases, strict=True):
        assert_same(case, expected)


def test_variables_come_back(tmp_path):
    first, second, *rest = make_cases()
    known = {"sex": "male", "ki67": 1 / 3}
    cases = [first, dataclasses.replace(second, variables=known), *rest]
    kinds = {"sex": "category", "ki67": "number"}
    records = write_cases(tmp_path / "r", cases, variables=kinds)
    assert records.variables == kinds
    assert [case.variables for case in records] == [{}, known, {}, {}]
    assert records.without_slides(1).variables == known
    with pytest.raises(InputError, match=r"case B: variables \['ki67'\] are not among those declared"):
        write_cases(tmp_path / "other", cases, variables={"sex": "category"})


def test_data_set_comes_back(written):
    assert written.genes == GENES
    assert written.gene_sets.names == GENE_SETS.names
    for group, expected in zip(written.gene_sets.groups, GENE_SETS.groups, strict=True):
        np.testing.assert_array_equal(group, expected)
        assert group.dtype == np.int32
    assert written.specs == SPECS
    assert written.sites == ("brca", "nsclc")
    assert (written.feature_dim, written.encoder, written.source) == (4, "none", "test")


def test_index(written):
    table = written.table
    assert table["case_id"].tolist() == ["A", "B", "C", "D-é"]
    assert table["num_slides"].tolist() == [0, 1, 3, 1]
    assert table["has_expression"].tolist() == [False, True, False, True]
    assert table["stage"].tolist() == ["", "Stage IIA", "Stage IIA", ""]
    assert table["time"].tolist()[1:] == [12.1, 12.1, 1 / 3]
    assert "expression_xxh3" not in table
    np.testing.assert_array_equal(written.lengths, np.array([0, 5, 10, 0], np.int32))
    assert written.lengths.dtype == np.int32
    assert written.labels(1) == make_cases()[1].labels
    assert math.isnan(written.labels(0).time)


@pytest.mark.parametrize(
    ("split", "site", "expected"),
    [("train", None, [0, 1, 3]), ("train", "nsclc", [3]), ("test", None, [2]), ("val", None, [])],
)
def test_rows(written, split, site, expected):
    assert written.rows(split, site).tolist() == expected


def test_cases_without_slides_equal_the_records(written):
    for i, case in enumerate(written):
        assert_same(written.without_slides(i), dataclasses.replace(case, slides=()))


def test_tensorflow_datasets_reads_the_folder(written):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(written.directory))
    source = builder.as_data_source("train")
    assert builder.info.splits["test"].num_examples == 1
    assert [source[i]["case_id"].decode() for i in range(len(source))] == ["A", "B", "D-é"]
    np.testing.assert_array_equal(source[1]["features"], make_cases()[1].slides[0].features)
    assert "tensorflow" not in sys.modules


def test_large_splits_are_sharded(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_writer, "SHARD_BYTES", 2000)
    cases = [Case(f"{i}", "brca", "train", (make_slide(f"{i}", 50 + i),), None, Labels()) for i in range(9)]
    records = write_cases(tmp_path / "r", cases)
    assert len(list((tmp_path / "r").glob("cases-train.array_record-*"))) > 2
    for case, expected in zip(records, cases, strict=True):
        assert_same(case, expected)


def test_pickled_records_read_the_same(written):
    assert_same(pickle.loads(pickle.dumps(written))[2], make_cases()[2])


def test_threads_share_records(written):
    with ThreadPoolExecutor(8) as pool:
        rows = [0, 1, 2, 3] * 50
        for i, case in zip(rows, pool.map(written.__getitem__, rows), strict=True):
            assert_same(case, make_cases()[i])


def test_data_without_slides_or_genes(tmp_path):
    cases = [Case("A", "brca", "train", (), None, Labels(age=40.0))]
    records = write_cases(tmp_path / "r", cases, genes=(), gene_sets=GeneSets((), ()))
    assert (records.feature_dim, records.genes, records.lengths.tolist()) == (0, (), [0])
    assert_same(records[0], cases[0])
    records.verify()


def test_verify_passes_and_shows_progress(written, capsys):
    written.verify(progress=True)
    assert "4/4" in capsys.readouterr().err


def test_progress_bar_of_writing(tmp_path, capsys):
    write_cases(tmp_path / "r", make_cases(), progress=True)
    assert "4/4" in capsys.readouterr().err


def other_slide(**changes):
    return (dataclasses.replace(make_slide("X-1", 3), **changes),)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        pytest.param(Case("B", "brca", "test", (), None, Labels()), "case B: comes twice", id="twice"),
        pytest.param(Case("X", "blca", "test", (), None, Labels()), "case X: site 'blca'", id="unknown-site"),
        pytest.param(Case("X", "brca", "dev", (), None, Labels()), "case X: split 'dev'", id="unknown-split"),
        pytest.param(
            Case("X", "brca", "val", (), np.zeros(2, np.float32), Labels()),
            "case X: .* 3 genes",
            id="few-genes",
        ),
        pytest.param(
            Case("X", "brca", "val", (make_slide("X-1", 3, 5),), None, Labels()), "slide X-1: .*5", id="width"
        ),
        pytest.param(
            Case("X", "brca", "val", (make_slide("X-1", 3, dtype=np.float32),), None, Labels()),
            "slide X-1: .*float32",
            id="dtype",
        ),
        pytest.param(
            Case("X", "brca", "val", other_slide(coords=np.zeros((2, 2), np.int32)), None, Labels()),
            "slide X-1: 3 tiles",
            id="coordinates",
        ),
    ],
)
def test_a_case_that_does_not_fit_is_named_and_nothing_is_left(tmp_path, case, message):
    with pytest.raises(InputError, match=message):
        write_cases(tmp_path / "r", [*make_cases(), case])
    assert list(tmp_path.iterdir()) == []


def test_double_precision_features_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"slide B-1: .*float64"):
        write_cases(tmp_path / "r", make_cases(np.float64))


def test_no_cases(tmp_path):
    with pytest.raises(InputError, match="no cases"):
        write_cases(tmp_path / "r", [])


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def interrupted():
        yield from make_cases()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cases(tmp_path / "r", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_existing_records_are_replaced_only_on_request(tmp_path):
    write_cases(tmp_path / "r", make_cases())
    with pytest.raises(InputError, match="exists already"):
        write_cases(tmp_path / "r", make_cases()[:2])
    assert Records(tmp_path / "r").num_cases == 4
    write_cases(tmp_path / "r", make_cases()[:2], overwrite=True)
    assert Records(tmp_path / "r").num_cases == 2
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_overwriting_spares_folders_that_are_not_records(tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(InputError, match="not a folder of records"):
        write_cases(tmp_path / "thesis", make_cases(), overwrite=True)
    assert (tmp_path / "thesis").is_dir()


def test_missing_directory(tmp_path):
    with pytest.raises(InputError, match="nowhere holds no records"):
        Records(tmp_path / "nowhere")


def test_another_format(tmp_path):
    path = write_cases(tmp_path / "r", make_cases()).directory / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(InputError, match="format 99, this version reads 3"):
        Records(tmp_path / "r")


def flip_bit(path, position, bits=1):
    content = np.memmap(path, np.uint8, "r+")
    content[position] ^= bits


@pytest.mark.parametrize("name", ["index.parquet", "metadata.json"])
def test_damaged_sidecars_are_found_on_opening(tmp_path, name):
    directory = write_cases(tmp_path / "r", make_cases()).directory
    flip_bit(directory / name, 0)
    with pytest.raises(InputError, match=name):
        Records(directory)


def test_a_damaged_record_is_named(tmp_path):
    records = write_cases(tmp_path / "r", make_cases())
    features = make_cases()[2].slides[2].features.tobytes()
    path = next(records.directory.glob("cases-test*"))
    flip_bit(path, path.read_bytes().index(features) + 3)
    with pytest.raises(InputError, match=r"case C in .*write the records again"):
        records[2]
    with pytest.raises(InputError, match="case C"):
        Records(records.directory).verify()
    assert_same(records[1], make_cases()[1])


def test_any_damaged_byte_of_a_record_is_found(tmp_path):
    records = write_cases(tmp_path / "r", make_cases())
    path = next(records.directory.glob("cases-test*"))
    content = path.read_bytes()
    features = b"".join(slide.features.tobytes() for slide in make_cases()[2].slides)
    # From the sizes in front of the record, behind the checksums of its chunk that nobody compares.
    for position in range(content.index(b"xxh3") - 11, content.index(features) + len(features)):
        flip_bit(path, position, (1, 16, 128, 255)[position % 4])
        with pytest.raises(InputError, match=r"case C in .*write the records again"):
            records[2]
        flip_bit(path, position, (1, 16, 128, 255)[position % 4])
    assert_same(records[2], make_cases()[2])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_features_are_read_into_rows_of_any_dtype(tmp_path, dtype, stored, monkeypatch):
    monkeypatch.setattr(examples, "_PIECE_BYTES", 20)  # several pieces
    cases = make_cases(stored)
    records = write_cases(tmp_path / "r", cases)
    rows = np.full((2, 12, 4), 9, dtype)
    case = records.read(2, rows[1, :10])
    expected = np.concatenate([slide.features for slide in cases[2].slides])
    np.testing.assert_array_equal(rows[1, :10], expected.astype(dtype))
    assert (rows[0] == 9).all()
    assert (rows[1, 10:] == 9).all()
    for slide in case.slides:
        assert np.shares_memory(slide.features, rows) == (len(slide.features) > 0)
        assert not slide.features.flags.writeable
    assert rows.flags.writeable


def test_rows_that_are_not_contiguous(written):
    with pytest.raises(ValueError, match="contiguous"):
        written.read(2, np.zeros((10, 8), np.float16)[:, :4])


def test_rows_that_are_not_as_many_as_tiles(written):
    with pytest.raises(InputError, match=r"case C .*10 tiles where the index says 9"):
        written.read(2, np.zeros((9, 4), np.float16))


def test_damaged_expression_is_named(tmp_path):
    records = write_cases(tmp_path / "r", make_cases())
    flip_bit(records.directory / "expression.npy", -1)
    assert_same(records[3], make_cases()[3])
    with pytest.raises(InputError, match=r"case D-é .*expression"):
        records.without_slides(3)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"id": "Z"}, id="id"),
        pytest.param({"site": "nsclc"}, id="site"),
        pytest.param({"split": "val"}, id="split"),
        pytest.param({"expression": np.array([1.5, np.nan, -2.5], np.float32)}, id="expression"),
        pytest.param({"expression": None}, id="no-expression"),
        pytest.param({"slides": ()}, id="no-slides"),
        pytest.param({"slides": (make_slide("Z-1", 5),)}, id="slide-id"),
        pytest.param({"slides": (make_slide("B-1", 5, patch_size_level0=256),)}, id="patch-size"),
        pytest.param({"labels": Labels(time=12.1000001)}, id="labels"),
    ],
)
def test_the_checksum_covers(change):
    case = make_cases()[1]
    assert examples.checksum(case) == examples.checksum(make_cases()[1])
    assert examples.checksum(dataclasses.replace(case, **change)) != examples.checksum(case)


@pytest.mark.parametrize("name", ["features", "coords"])
def test_the_checksum_covers_every_tile(name):
    case = make_cases()[1]
    array = getattr(case.slides[0], name).copy()
    array[-1, -1] += 1
    slide = dataclasses.replace(case.slides[0], **{name: array})
    assert examples.checksum(dataclasses.replace(case, slides=(slide,))) != examples.checksum(case)


def test_an_index_of_other_records_is_found(written):
    records = Records(written.directory)
    records.table.loc[1, "case_id"] = "Z"
    with pytest.raises(InputError, match=r"case Z .*its place holds case B"):
        records[1]
    records = Records(written.directory)
    records.lengths[2] = 11
    with pytest.raises(InputError, match=r"case C .*10 tiles where the index says 11"):
        records.verify()


def test_a_wrong_payload_with_an_intact_file_is_named(tmp_path, monkeypatch):
    checksum = examples.checksum
    monkeypatch.setattr(
        examples, "checksum", lambda case: checksum(case)[::-1] if case.id == "B" else checksum(case)
    )
    records = write_cases(tmp_path / "r", make_cases())
    monkeypatch.undo()
    assert_same(records[0], make_cases()[0])
    with pytest.raises(InputError, match=r"case B .*its checksum"):
        records[1]


def test_a_missing_file_is_named_with_the_case(tmp_path):
    records = write_cases(tmp_path / "r", make_cases())
    next(records.directory.glob("cases-test*")).unlink()
    with pytest.raises(InputError, match="case C"):
        records[2]
