"""Cohort definitions, diagnosis words, and the checks on cases."""

import dataclasses
import doctest
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs import cohort
from modaltune_jax.inputs.cohort import CohortSpec, check_cases, clean_diagnosis, find_spec, load_spec
from modaltune_jax.types import Case, InputError, Labels, Slide

COHORTS = ("brca", "gbmlgg", "nsclc", "rcc", "blca", "coadread", "ucec")


def make_slide(id="S1", num_tiles=3, width=4, **changes):
    slide = Slide(
        id, np.ones((num_tiles, width), np.float16), np.zeros((num_tiles, 2), np.int32), patch_size_level0=512
    )
    return dataclasses.replace(slide, **changes)


def make_case(id="A", split="train", slides=None, expression=None, site="brca", **labels):
    slides = (make_slide(f"{id}-1"),) if slides is None else slides
    return Case(id, site, split, tuple(slides), expression, Labels(**labels))


def nan_in_tile(row):
    features = np.ones((3, 4), np.float16)
    features[row, 2] = np.nan
    return features


def test_doctests():
    assert doctest.testmod(cohort).attempted > 0
    assert doctest.testmod(cohort).failed == 0


@pytest.mark.parametrize("name", COHORTS)
def test_every_definition_loads(name):
    spec = find_spec(name)
    assert spec.name == name
    assert set(spec.diagnoses.values()) == set(range(len(spec.classes)))
    for project in ("", *spec.projects):
        for plain in spec.synonyms:
            words = clean_diagnosis(plain, spec, project)
            assert clean_diagnosis(words, spec, project) == words, "cleaning twice changes nothing"


def test_every_cohort_of_the_paper_is_here():
    files = (Path(__file__).parents[2] / "data").glob("*.toml")
    assert sorted(path.stem for path in files) == sorted(COHORTS)


@pytest.mark.parametrize(
    ("name", "raw", "words", "subtype"),
    [
        pytest.param("brca", "Lobular carcinoma, NOS", "lobular carcinoma", 1, id="nos"),
        pytest.param(
            "brca", "  Infiltrating  duct carcinoma, NOS ", "infiltrating duct carcinoma", 0, id="spaces"
        ),
        pytest.param("brca", "Phyllodes tumor, malignant", "phyllodes tumor, malignant", -1, id="no-class"),
        pytest.param("gbmlgg", "Astrocytoma, anaplastic", "astrocytoma, anaplastic", 1, id="comma-kept"),
        pytest.param("gbmlgg", "Glioblastoma", "glioblastoma", 0, id="plain"),
        pytest.param("nsclc", "Adenocarcinoma, NOS", "lung adenocarcinoma", 0, id="prefix"),
        pytest.param("nsclc", "lung adenocarcinoma", "lung adenocarcinoma", 0, id="prefix-there"),
        pytest.param("nsclc", "Adenocarcinoma with mixed subtypes", "lung adenocarcinoma", 0, id="synonym"),
        pytest.param(
            "nsclc",
            "Squamous cell carcinoma, keratinizing, NOS",
            "lung squamous cell carcinoma",
            1,
            id="keratinizing",
        ),
        pytest.param("nsclc", "Acinar cell carcinoma", "lung acinar cell carcinoma", -1, id="lung-no-class"),
        pytest.param("rcc", "Papillary adenocarcinoma, NOS", "papillary renal cell carcinoma", 0, id="kirp"),
        pytest.param("rcc", "Clear cell adenocarcinoma, NOS", "renal clear cell carcinoma", 1, id="kirc"),
        pytest.param(
            "rcc", "Renal cell carcinoma, chromophobe type", "chromophobe renal cell carcinoma", 2, id="kich"
        ),
        pytest.param("rcc", "Renal cell carcinoma, NOS", "renal cell carcinoma", -1, id="rcc-unspecified"),
        pytest.param("blca", "Transitional cell carcinoma", "transitional cell carcinoma", 0, id="blca"),
        pytest.param(
            "blca",
            "Papillary adenocarcinoma, NOS",
            "papillary transitional cell carcinoma",
            1,
            id="blca-papillary",
        ),
        pytest.param(
            "ucec", "Endometrioid adenocarcinoma, NOS", "endometrioid adenocarcinoma", 0, id="endometrioid"
        ),
        pytest.param(
            "ucec",
            "Endometrioid adenocarcinoma, secretory variant",
            "endometrioid adenocarcinoma",
            0,
            id="secretory",
        ),
        pytest.param(
            "ucec", "Adenocarcinoma, NOS", "endometrioid adenocarcinoma", 0, id="ucec-adenocarcinoma"
        ),
        pytest.param("ucec", "Serous cystadenocarcinoma, NOS", "serous cystadenocarcinoma", 1, id="serous"),
        pytest.param(
            "ucec",
            "Papillary serous cystadenocarcinoma",
            "serous cystadenocarcinoma",
            1,
            id="papillary-serous",
        ),
        pytest.param(
            "ucec", "Serous surface papillary carcinoma", "serous cystadenocarcinoma", 1, id="serous-surface"
        ),
        pytest.param(
            "ucec", "Clear cell adenocarcinoma, NOS", "clear cell adenocarcinoma", -1, id="ucec-clear"
        ),
        pytest.param("nsclc", "Not Reported", "", -1, id="not-reported"),
        pytest.param("nsclc", "[Not Available]", "", -1, id="brackets"),
        pytest.param("nsclc", "'--", "", -1, id="gdc-dashes"),
    ],
)
def test_clean_diagnosis(name, raw, words, subtype):
    spec = find_spec(name)
    assert clean_diagnosis(raw, spec) == words
    assert spec.subtype(words) == subtype


@pytest.mark.parametrize(
    ("project", "raw", "words", "subtype"),
    [
        pytest.param("TCGA-COAD", "Adenocarcinoma, NOS", "colon adenocarcinoma", 0, id="colon"),
        pytest.param("TCGA-READ", "Adenocarcinoma, NOS", "rectal adenocarcinoma", 1, id="rectum"),
        pytest.param(
            "TCGA-COAD", "Adenocarcinoma with mixed subtypes", "colon adenocarcinoma", 0, id="mixed"
        ),
        pytest.param(
            "TCGA-READ", "Mucinous adenocarcinoma", "rectal mucinous adenocarcinoma", -1, id="variant"
        ),
        pytest.param(
            "TCGA-READ",
            "Adenocarcinoma in tubolovillous adenoma",
            "rectal adenocarcinoma in tubolovillous adenoma",
            -1,
            id="tubolovillous",
        ),
        pytest.param(
            "TCGA-READ", "colon adenocarcinoma", "colon adenocarcinoma", 0, id="another-prefix-there"
        ),
        pytest.param("", "rectal adenocarcinoma", "rectal adenocarcinoma", 1, id="clean-without-project"),
        pytest.param("", "Adenocarcinoma, NOS", "adenocarcinoma", -1, id="no-project-no-class"),
        pytest.param("CPTAC-2", "Adenocarcinoma, NOS", "adenocarcinoma", -1, id="other-project-no-class"),
        pytest.param("TCGA-COAD", "Not Reported", "", -1, id="not-reported"),
    ],
)
def test_prefix_by_project(project, raw, words, subtype):
    spec = find_spec("coadread")
    assert clean_diagnosis(raw, spec, project) == words
    assert clean_diagnosis(words, spec, project) == words
    assert spec.subtype(words) == subtype


@settings(deadline=None, max_examples=50)
@given(
    raw=st.one_of(
        st.text(max_size=20),
        st.sampled_from(["adenocarcinoma", "Papillary adenocarcinoma , NOS, NOS", "colon polyp"]),
    ),
    name=st.sampled_from(COHORTS),
    data=st.data(),
)
def test_cleaning_twice_changes_nothing(raw, name, data):
    spec = find_spec(name)
    project = data.draw(st.sampled_from(["", *spec.projects]))
    words = clean_diagnosis(raw, spec, project)
    assert clean_diagnosis(words, spec, project) == words


def test_a_definition_survives_json():
    spec = find_spec("coadread")
    fields = json.loads(json.dumps(dataclasses.asdict(spec)))
    again = CohortSpec(
        **fields | {"projects": tuple(fields["projects"]), "classes": tuple(fields["classes"])}
    )
    assert again == spec


GOOD = """
name = "x"
title = "X"
organ = "skin"
classes = ["a", "b"]
[diagnoses]
"melanoma" = "b"
"""


def test_the_definition_of_the_readme_loads(tmp_path):
    readme = (Path(__file__).parents[2] / "data/README.md").read_text(encoding="utf-8")
    path = tmp_path / "prad.toml"
    path.write_text(readme.split("```toml\n")[1].split("```")[0])
    spec = load_spec(path)
    assert spec.subtype(clean_diagnosis("Adenocarcinoma, NOS", spec)) == 0
    assert spec.subtype(clean_diagnosis("Infiltrating duct carcinoma, NOS", spec)) == 1


def test_find_spec_takes_a_path(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(GOOD)
    expected = CohortSpec(name="x", title="X", organ="skin", classes=("a", "b"), diagnoses={"melanoma": 1})
    assert find_spec(str(path)) == load_spec(path) == expected


def test_a_byte_order_mark_is_no_part_of_a_definition(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(GOOD.lstrip(), encoding="utf-8-sig")
    assert load_spec(path).name == "x"


def test_find_spec_takes_a_name_of_the_shipped_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.toml").write_text(GOOD)
    monkeypatch.setattr(cohort, "shipped", lambda folder: tmp_path / folder)
    assert find_spec("x").organ == "skin"
    with pytest.raises(InputError, match=r"unknown cohort 'brca': known are \['x'\]"):
        find_spec("brca")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(GOOD + "[", "is not TOML", id="syntax"),
        pytest.param(GOOD.replace('"X"', '"\xdc"'), "x.toml: is not UTF-8 text", id="latin-1"),
        pytest.param(GOOD.replace('"x"', '""'), "name is ''; write small letters", id="no-name"),
        pytest.param(GOOD.replace('"x"', '"Pr/AD x"'), "name is 'Pr/AD x'", id="name-with-a-slash"),
        pytest.param(GOOD.replace('"x"', '"../evil"'), "name is '../evil'", id="name-of-a-folder"),
        pytest.param(GOOD.replace('"a", "b"', '"a", "b", "A"'), "give each once", id="class-twice"),
        pytest.param(GOOD.replace('organ = "skin"', ""), r"missing fields \['organ'\]", id="field-missing"),
        pytest.param('colour = "red"\n' + GOOD, r"unknown fields \['colour'\]", id="field-unknown"),
        pytest.param(
            GOOD.replace('= "b"', '= "c"'), "class 'c', which is not in classes", id="class-unknown"
        ),
        pytest.param(
            GOOD.replace('"melanoma"', '"Melanoma, NOS"'), "write 'melanoma'", id="diagnosis-not-clean"
        ),
        pytest.param(GOOD + '[synonyms]\n"Naevus" = "a"', "write 'naevus'", id="synonym-not-plain"),
        pytest.param(
            GOOD.replace('["a", "b"]', '"ab"'), "classes is 'ab'; it must be a list", id="not-a-list"
        ),
        pytest.param(GOOD.replace('= "b"', "= 1"), "it must be a table of strings", id="class-by-number"),
        pytest.param(GOOD.replace('"skin"', "3"), "organ is 3; it must be a string", id="not-a-string"),
        pytest.param(
            "diagnosis_prefix = 3\n" + GOOD,
            "diagnosis_prefix is 3; it must be a string, or a table",
            id="prefix",
        ),
        pytest.param(
            'projects = ["P"]\ndiagnosis_prefix = {Q = "left"}\n' + GOOD,
            r"the projects \['Q'\], which are not in projects",
            id="prefix-of-unknown-project",
        ),
        pytest.param(
            'projects = ["P"]\ndiagnosis_prefix = {P = "left"}\n' + GOOD,
            "write 'left melanoma'",
            id="diagnosis-without-prefix",
        ),
        pytest.param(
            GOOD + '[synonyms]\n"nevus" = "mole"\n"mole" = "naevus"',
            "synonym 'nevus' is 'mole', which is not clean; write 'naevus'",
            id="synonym-of-a-synonym",
        ),
    ],
)
def test_wrong_definitions(tmp_path, text, message):
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        load_spec(path)


def test_unknown_cohort_names_the_known_ones():
    with pytest.raises(InputError, match=r"unknown cohort 'brac': known are \['blca', 'brca'"):
        find_spec("brac")
    with pytest.raises(InputError, match="no such file"):
        find_spec("nowhere/x.toml")


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        pytest.param(
            [make_case("A", "train"), make_case("A", "test", slides=())],
            "case A: is in both train and test",
            id="case-in-two-splits",
        ),
        pytest.param(
            [make_case("A"), make_case("A", slides=())], "case A: is twice in train", id="duplicate-id"
        ),
        pytest.param([make_case("A", "dev")], "split 'dev' is none of train, val, test", id="split-unknown"),
        pytest.param(
            [make_case("A", slides=[make_slide("S9", features=nan_in_tile(1))])],
            "case A, slide S9: tile 1 has NaN",
            id="nan-features",
        ),
        pytest.param(
            [make_case("A", slides=[make_slide("S9", features=np.full((3, 4), np.inf, np.float32))])],
            "case A, slide S9: tile 0 has NaN or infinite",
            id="infinite-features",
        ),
        pytest.param(
            [make_case("A"), make_case("B", slides=[make_slide("S9", width=5)])],
            "case B, slide S9: features are 5 wide but those before it 4",
            id="widths-differ",
        ),
        pytest.param(
            [make_case("A", slides=[make_slide("S1"), make_slide("S2", width=5)])],
            "case A, slide S2: features are 5 wide",
            id="widths-differ-within-case",
        ),
        pytest.param(
            [make_case("A", slides=[make_slide("S1", features=np.ones((3, 4), np.float64))])],
            "features are float64",
            id="float64-features",
        ),
        pytest.param(
            [make_case("A", slides=[make_slide("S1", coords=np.zeros((2, 2), np.int32))])],
            r"3 tiles but coordinates of shape \(2, 2\)",
            id="coords-do-not-match",
        ),
        pytest.param(
            [make_case("A", slides=[make_slide("S1", patch_size_level0=0)])],
            "patch_size_level0 is 0",
            id="patch-size",
        ),
        pytest.param(
            [make_case("A", slides=[make_slide("S1")]), make_case("B", "test", slides=[make_slide("S1")])],
            "case B, slide S1: belongs to case A too",
            id="slide-in-two-cases",
        ),
        pytest.param([make_case("A", time=-1.0, event=0)], "time is -1.0 months", id="negative-time"),
        pytest.param([make_case("A", time=math.inf, event=0)], "time is inf months", id="infinite-time"),
        pytest.param(
            [make_case("A", event=1)], "event is 1 but the time is missing", id="event-without-time"
        ),
        pytest.param([make_case("A", time=3.0, event=2)], "event is 2; write 1", id="event-unknown"),
        pytest.param([make_case("A", age=21000.0)], "age 21000.0 is not in years", id="age-in-days"),
        pytest.param(
            [make_case("A", t="large")], "case A: t 'large' is not an AJCC code", id="stage-unreadable"
        ),
        pytest.param([make_case("A", site="prad")], "unknown site 'prad'", id="unknown-site"),
        pytest.param(
            [make_case("A", subtype=2)], "subtype 2, but brca has 2 classes", id="subtype-beyond-classes"
        ),
        pytest.param(
            [
                make_case("A", expression=np.ones(3, np.float32)),
                make_case("B", expression=np.ones(4, np.float32)),
            ],
            "case B: has 4 genes but those before it 3",
            id="gene-counts-differ",
        ),
        pytest.param(
            [make_case("A", expression=np.asarray([1, -np.inf], np.float32))],
            "expression of gene 1 is infinite",
            id="infinite-expression",
        ),
    ],
)
def test_check_cases_refuses(cases, message):
    with pytest.raises(InputError, match=message):
        check_cases(cases, [find_spec("brca")])


def test_check_cases_keeps_and_warns():
    empty = make_slide("S0", num_tiles=0)
    cases = [
        make_case("A", slides=[empty, make_slide("S1")]),
        make_case("B", slides=(), expression=np.asarray([np.nan, 1.0], np.float32)),
        make_case("C", "test", slides=()),
    ]
    assert check_cases(iter(cases), [find_spec("brca")]) == [
        "case A, slide S0: has no tiles; kept as empty",
        "case C: has neither slides nor expression; kept with both marked absent",
    ]


def test_check_cases_passes_good_cases():
    bfloat = make_slide("S1", features=np.ones((3, 4), ml_dtypes.bfloat16))
    cases = [
        make_case("A", slides=[bfloat], time=0.0, event=1, stage="Stage X", age=0.0, subtype=-1),
        make_case("B", "val", time=4.0, site="nowhere"),
    ]
    assert check_cases(cases) == [], "without specs any site is welcome"
