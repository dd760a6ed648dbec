"""The reader of the TCGA benchmark: a small copy of its layout, and the real files where they are at hand."""

import doctest
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.cohort import check_cases, find_spec
from modaltune_jax.inputs.prompts import sentences
from modaltune_jax.inputs.readers import tcga_bench
from modaltune_jax.inputs.readers.tcga_bench import pseudo_grid, read
from modaltune_jax.inputs.transforms import fit_transforms
from modaltune_jax.types import InputError

TCGA = Path(__file__).parents[2] / "../shared/tcga"
needs_tcga = pytest.mark.skipif(not TCGA.is_dir(), reason=f"TCGA benchmark not at {TCGA}")
COHORTS = ("brca", "gbmlgg", "nsclc", "rcc", "blca")

HEADER = (
    "case_id,split,primary_class,primary_diagnosis,vital_status,durations_months,stage,T,N,M,age,slide_ids\n"
)


@pytest.fixture
def root(tmp_path):
    """Two brca cases, one without slides, one rcc case without expression."""
    for folder in ("splits", "wsi_hipt", "rna"):
        (tmp_path / folder).mkdir()
    (tmp_path / "splits/brca.csv").write_text(
        HEADER + "B1,train,1,lobular carcinoma,1,12.5,Stage IIA,T2,N0 (i-),M0,61,B1-DX1;B1-DX2\n"
        "B2,test,-1,medullary carcinoma,0,0.0,,,,,,B2-DX1\n"
    )
    (tmp_path / "splits/rcc.csv").write_text(
        HEADER + 'R1,val,1,"Clear cell adenocarcinoma, NOS",,,Stage I,T1a,NX,MX,50,R1-DX1\n'
    )
    lo, scale = np.asarray([-1.0, 0.0], np.float32), np.asarray([0.5, 0.25], np.float32)
    shared = {"lo": lo, "scale": scale}
    np.savez(
        tmp_path / "wsi_hipt/brca.npz",
        q=np.arange(6, dtype=np.uint8).reshape(3, 2),
        start=np.asarray([0, 1], np.int32),
        n=np.asarray([1, 2], np.int32),
        slide=np.asarray(["B1-DX1", "B1-DX2"]),
        **shared,
    )
    np.savez(
        tmp_path / "wsi_hipt/rcc.npz",
        q=np.zeros((1, 2), np.uint8),
        start=np.zeros(1, np.int32),
        n=np.ones(1, np.int32),
        slide=np.asarray(["R1-DX1"]),
        **shared,
    )
    as_table = {
        "case_id": ["B2", "B1"],
        "G1": np.asarray([0, -3], np.float16),
        "G2": np.asarray([7, 1], np.float16),
    }
    pd.DataFrame(as_table).to_parquet(tmp_path / "rna/brca.parquet")
    pd.DataFrame({"case_id": ["R9"], "G2": np.ones(1, np.float16), "G3": np.ones(1, np.float16)}).to_parquet(
        tmp_path / "rna/rcc.parquet"
    )
    pd.DataFrame({"case_id": ["R1", "B1"], "S": np.asarray([2, -4], np.float16)}).to_parquet(
        tmp_path / "rna/pancan_sig_dec.parquet"
    )
    return tmp_path


def test_doctests():
    assert doctest.testmod(tcga_bench).attempted > 0
    assert doctest.testmod(tcga_bench).failed == 0


def test_labels_and_splits(root):
    (b1, b2, r1), _ = read(root, ["brca", "rcc"])
    assert [(case.id, case.site, case.split) for case in (b1, b2, r1)] == [
        ("B1", "brca", "train"),
        ("B2", "brca", "test"),
        ("R1", "rcc", "val"),
    ]
    assert (b1.labels.diagnosis, b1.labels.subtype, b1.labels.time, b1.labels.event) == (
        "lobular carcinoma",
        1,
        12.5,
        1,
    )
    assert (b1.labels.stage, b1.labels.t, b1.labels.n, b1.labels.m, b1.labels.age) == (
        "Stage IIA",
        "T2",
        "N0 (i-)",
        "M0",
        61.0,
    )
    assert (b2.labels.time, b2.labels.event, b2.labels.stage) == (0.0, 0, "")
    assert math.isnan(b2.labels.age)
    assert r1.labels.diagnosis == "renal clear cell carcinoma"
    assert math.isnan(r1.labels.time)
    assert r1.labels.event == -1
    check_cases([b1, b2, r1], [find_spec("brca"), find_spec("rcc")])


def test_bags(root):
    (b1, b2), _ = read(root, ["brca"])
    assert [slide.id for slide in b1.slides] == ["B1-DX1", "B1-DX2"]
    np.testing.assert_array_equal(b1.slides[0].features, np.asarray([[-1.0, 0.25]], np.float16), strict=True)
    np.testing.assert_array_equal(
        b1.slides[1].features, np.asarray([[0.0, 0.75], [1.0, 1.25]], np.float16), strict=True
    )
    assert b1.slides[1].coords.tolist() == [[0, 0], [0, 4096]]
    assert b1.slides[1].patch_size_level0 == 4096
    assert b2.slides == (), "a slide without features is left out, its case kept"


def test_pancancer_expression(root):
    (b1, b2, r1), genes = read(root, ["brca", "rcc"])
    assert genes == ["S"]
    assert b1.expression.tolist() == [-4.0]
    assert r1.expression.tolist() == [2.0]
    assert b2.expression is None


def test_own_expression(root):
    (b1, b2, r1), genes = read(root, ["brca", "rcc"], "own")
    assert genes == ["G1", "G2", "G3"], "columns in order of first appearance"
    np.testing.assert_allclose(b1.expression, [-math.log(4), math.log(2), np.nan], rtol=1e-6)
    np.testing.assert_allclose(b2.expression, [0.0, math.log(8), np.nan], rtol=1e-6)
    assert r1.expression is None
    assert b1.expression.dtype == np.float32


def test_expression_by_path(root):
    (b1, _), genes = read(root, ["brca"], "rna/pancan_sig_dec.parquet")
    assert (genes, b1.expression.tolist()) == (["S"], [-4.0])


@pytest.mark.parametrize("num_regions", [0, 1, 2, 4, 5, 38, 915])
def test_pseudo_grid_has_one_cell_a_region(num_regions):
    coords = pseudo_grid(num_regions)
    assert coords.shape == (num_regions, 2)
    assert coords.dtype == np.int32
    side = math.ceil(math.sqrt(num_regions))
    expected = [[i // side * 4096, i % side * 4096] for i in range(num_regions)]
    assert coords.tolist() == expected
    assert len(set(map(tuple, coords.tolist()))) == num_regions


@pytest.mark.parametrize(
    ("cohorts", "expression", "message"),
    [
        pytest.param(["prad"], "own", "no such file", id="no-such-cohort"),
        pytest.param(["brca"], "genes", "expression 'genes' is not known", id="expression-unknown"),
        pytest.param(["brca"], "rna/x.parquet", "x.parquet: no such file", id="no-such-table"),
    ],
)
def test_wrong_requests(root, cohorts, expression, message):
    with pytest.raises(InputError, match=message):
        read(root, cohorts, expression)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("12.5", "a year", "brca.csv: case B1: could not convert", id="time-not-a-number"),
        pytest.param("vital_status", "status", r"lacks the columns \['vital_status'\]", id="column-missing"),
    ],
)
def test_wrong_split_file(root, old, new, message):
    path = root / "splits/brca.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read(root, ["brca"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param({"id": ["B1"]}, "lacks the column case_id", id="no-case-id"),
        pytest.param({"case_id": ["B1", "B1"]}, "case B1 is there twice", id="case-twice"),
    ],
)
def test_wrong_expression_table(root, columns, message):
    pd.DataFrame(columns | {"G": 1.0}).to_parquet(root / "rna/x.parquet")
    with pytest.raises(InputError, match=message):
        read(root, ["brca"], "rna/x.parquet")


@needs_tcga
def test_real_cases():
    cases, genes = read(TCGA, COHORTS)
    specs = [find_spec(name) for name in COHORTS]
    assert (len(cases), len(genes)) == (4146, 119)
    assert sum(case.expression is not None for case in cases) == 3737
    assert sum(len(case.slides) for case in cases) == 1023 + 1530 + 993 + 898 + 453
    assert sum(not case.slides for case in cases) == 69 + 113 + 44 + 23 + 2
    warnings = check_cases(cases, specs)
    assert all("neither slides nor expression" in warning for warning in warnings)
    by_name = {spec.name: spec for spec in specs}
    for case in cases:
        assert by_name[case.site].subtype(case.labels.diagnosis) == case.labels.subtype, case.id


@needs_tcga
def test_real_reference_bins_and_sentences():
    cases, _ = read(TCGA, COHORTS)
    specs = {name: find_spec(name) for name in COHORTS}
    edges = fit_transforms(cases, bins="reference").survival_edges
    published = pd.read_csv(TCGA / "prompts.csv.gz", dtype=str, keep_default_na=False).set_index("case_id")
    bins = json.loads((TCGA / "prompt_bins.json").read_text())
    for cohort in COHORTS:  # the split files round months to four decimals
        np.testing.assert_allclose(edges[cohort], bins[cohort.upper()]["edges_months"], atol=5.1e-5, rtol=0)
    for case in cases:
        row = published.loc[case.id]
        expected = (row["general"], row["diagnosis"], row["stage"], row["survival"])
        assert sentences(case.labels, specs[case.site], edges[case.site]) == expected, case.id


@needs_tcga
def test_real_own_expression_is_compressed_for_brca_only():
    cases, genes = read(TCGA, ["brca"], "own")
    table = pd.read_parquet(TCGA / "rna/brca.parquet").set_index("case_id").astype(np.float32)
    case = next(case for case in cases if case.expression is not None)
    raw = table.loc[case.id].to_numpy()
    assert genes == list(table.columns)
    np.testing.assert_allclose(case.expression, np.sign(raw) * np.log1p(np.abs(raw)), rtol=1e-6)
    cases, _ = read(TCGA, ["blca"], "own")
    table = pd.read_parquet(TCGA / "rna/blca.parquet").set_index("case_id").astype(np.float32)
    case = next(case for case in cases if case.expression is not None)
    np.testing.assert_array_equal(case.expression, table.loc[case.id].to_numpy())
