"""Barcodes of TCGA, and rules from slides to cases."""

import doctest

import pytest

from modaltune_jax.inputs import barcodes
from modaltune_jax.inputs.barcodes import case_of, case_rule, is_barcode, sample_type, slide_name
from modaltune_jax.types import InputError


def test_doctests():
    result = doctest.testmod(barcodes)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "barcode",
    [
        pytest.param("TCGA-E2-A14P", id="case"),
        pytest.param("tcga-e2-a14p-01z-00-dx1", id="lower-case"),
        pytest.param("TCGA-E2-A14P-01", id="sample"),
        pytest.param("TCGA-E2-A14P-01A-11R-A115-07", id="aliquot"),
        pytest.param("TCGA-E2-A14P-01Z-00-DX1.663B9B44-E9B4.svs", id="file"),
    ],
)
def test_case_of_a_barcode_of_any_length(barcode):
    assert case_of(barcode) == "TCGA-E2-A14P"
    assert is_barcode(barcode)


@pytest.mark.parametrize("name", ["C3L-00016-21", "TCGA-E2", "TCGA-E2-A14PX-01", "", "X-TCGA-E2-A14P"])
def test_other_names_are_no_barcodes(name):
    assert not is_barcode(name)
    with pytest.raises(InputError, match=r"is not a TCGA barcode .* --case-of-slide"):
        case_of(name)


def test_sample_types():
    types = [sample_type(f"TCGA-E2-A14P-{type}") for type in ("01A", "06", "11B-00", "20")]
    assert types == [1, 6, 11, 20]


def test_rule_by_name():
    assert case_rule("name")("patient 7") == "patient 7"
    assert case_rule("tcga")("TCGA-E2-A14P-01Z-00-DX1") == "TCGA-E2-A14P"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".txt", ".CSV", ".xlsx"])
def test_rule_by_file(tmp_path, suffix):
    import pandas as pd

    path = tmp_path / f"cases{suffix}"
    table = pd.DataFrame({"case_id": ["A", "A", "B"], "slide_id": ["a1.svs", "a2", "b1.tiff"]})
    if suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, sep="\t" if suffix in (".tsv", ".txt") else ",", index=False)
    rule = case_rule(str(path))
    assert [rule(slide) for slide in ("a1", "a2.svs", "b1")] == ["A", "A", "B"]
    with pytest.raises(InputError, match=rf"slide c9: is not listed in {path}; add a row"):
        rule("c9")


def test_rule_by_pattern_names_slide_and_rule():
    rule = case_rule(r"(P\d+)_")
    assert rule("P12_HE_3") == "P12"
    with pytest.raises(InputError, match=r"slide HE_P12_3: does not match the case rule '\(P"):
        rule("HE_P12_3")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        pytest.param("P(", "is not a regular expression", id="broken"),
        pytest.param(r"P\d+", "has 0 groups", id="no-group"),
        pytest.param(r"(P)(\d+)", "has 2 groups", id="two-groups"),
        pytest.param("absent.csv", "no such file; give a CSV", id="no-file"),
    ],
)
def test_wrong_rules(rule, message):
    with pytest.raises(InputError, match=message):
        case_rule(rule)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("slide,case\na,A\n", "slide, case; it needs slide_id and case_id", id="columns"),
        pytest.param("slide_id,case_id\na,A\na.svs,B\n", "slide a.svs has the cases A and B", id="two-cases"),
        pytest.param("slide_id,case_id\na,\n", "fill both cells", id="empty"),
        pytest.param("slide_id,case_id\na,M\xfc\n", "not UTF-8 text", id="latin-1"),
        pytest.param("slide_id,case_id\na,A,\nb,B,\n", "line 2 has 3 cells", id="ragged"),
        pytest.param("", "is empty", id="no-text"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        case_rule(str(path))


def test_spaces_around_ids_are_no_part_of_them(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("slide_id,case_id\n a1 ,A \n")
    assert case_rule(str(path))("a1") == "A"


def test_endings_of_slides():
    assert slide_name("a.b.SVS") == "a.b"
    assert slide_name("TCGA-E2-A14P-01Z-00-DX1.663B9B44") == "TCGA-E2-A14P-01Z-00-DX1.663B9B44"
