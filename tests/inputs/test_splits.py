"""Split files of every layout, and splits drawn by recipes."""

import dataclasses
import doctest
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs import split_recipes
from modaltune_jax.inputs.barcodes import case_of
from modaltune_jax.inputs.cohort import SPLITS
from modaltune_jax.inputs.split_recipes import all_folds
from modaltune_jax.inputs.splits import Splits, make_splits, read_splits, write_splits
from modaltune_jax.types import InputError

TCGA = Path(__file__).parents[2] / "../shared/tcga"
FRACTIONS = (0.7, 0.15, 0.15)
STRATIFIED = "stratified:0.7,0.15,0.15:7"


def make_frame(sizes, num_sites=1, seed=0):
    """Cases with the given number in every (site, subtype, event), from `num_sites` tissue source sites."""
    rows = [key for key, size in sizes.items() for _ in range(size)]
    frame = pd.DataFrame(rows, columns=["site", "subtype", "event"])
    frame.index = pd.Index([f"case-{i:04d}" for i in range(len(frame))], name="case_id")
    rng = np.random.default_rng(seed)
    frame["tissue_source_site"] = [f"T{i}" for i in rng.integers(0, num_sites, len(frame))]
    return frame.iloc[rng.permutation(len(frame))]


BALANCED = {("brca", 0, 0): 60, ("brca", 0, 1): 21, ("brca", 1, 0): 33, ("brca", 1, 1): 7, ("brca", -1, 0): 4}

cohorts = st.dictionaries(
    st.tuples(st.sampled_from(["brca", "rcc"]), st.integers(-1, 2), st.integers(-1, 1)),
    st.integers(1, 40),
    min_size=1,
    max_size=9,
)


def large_classes(sizes, smallest):
    """The sizes with small classes made classless: those have an error of their own."""
    per_class = Counter()
    for (site, subtype, _), size in sizes.items():
        per_class[site, subtype] += size
    merged = Counter()
    for (site, subtype, event), size in sizes.items():
        merged[site, subtype if per_class[site, subtype] >= smallest else -1, event] += size
    return dict(merged)


def test_doctests():
    assert doctest.testmod(split_recipes).attempted > 0
    assert doctest.testmod(split_recipes).failed == 0


@settings(deadline=None, max_examples=60)
@given(sizes=cohorts, seed=st.integers(0, 5))
def test_stratified_is_exact_within_one_for_strata_and_classes(sizes, seed):
    frame = make_frame(large_classes(sizes, smallest=7))
    splits = make_splits(f"stratified:0.7,0.15,0.15:{seed}", frame)
    assert set(splits.of) == set(frame.index), "every case in exactly one split"
    split = frame.index.map(splits.of)
    for keys in (["site", "subtype", "event"], ["site", "subtype"]):
        for _, rows in frame.assign(split=split).groupby(keys):
            count = rows["split"].value_counts()
            for name, fraction in zip(SPLITS, FRACTIONS, strict=True):
                assert abs(count.get(name, 0) - fraction * len(rows)) < 1


def test_many_small_strata_reach_every_split_together():
    events = make_frame({("brca", -1, event): 1 for event in (-1, 0, 1)})
    drawn = make_splits("stratified:0.4,0.3,0.3:0", events)
    assert Counter(drawn.of.values()) == {"train": 1, "val": 1, "test": 1}
    cohorts = make_frame({(f"cohort{i}", -1, 0): 1 for i in range(20)})
    drawn = make_splits("stratified:0.4,0.3,0.3:0", cohorts)
    assert Counter(drawn.of.values()) == {"train": 8, "val": 6, "test": 6}


@settings(deadline=None, max_examples=20)
@given(sizes=cohorts, num_folds=st.integers(3, 5), seed=st.integers(0, 5))
def test_every_case_is_tested_once_over_the_folds(sizes, num_folds, seed):
    sizes = large_classes(sizes, smallest=num_folds) | {("brca", 0, 0): 10}
    frame = make_frame(sizes)
    folds = [make_splits(recipe, frame) for recipe in all_folds(f"kfold:{num_folds}:0:{seed}")]
    for split in ("val", "test"):
        drawn = Counter(id for fold in folds for id, name in fold.of.items() if name == split)
        assert drawn == Counter(frame.index)
    for fold in folds:
        for _, rows in frame.assign(split=frame.index.map(fold.of)).groupby(["site", "subtype", "event"]):
            assert abs((rows["split"] == "test").sum() - len(rows) / num_folds) < 1


@settings(deadline=None, max_examples=20)
@given(num_sites=st.integers(12, 30), num_folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_a_tissue_source_site_is_never_divided(num_sites, num_folds, seed):
    frame = make_frame(BALANCED, num_sites, seed)
    tested = Counter()
    for recipe in all_folds(f"site-preserved:{num_folds}:0:{seed}"):
        split = frame.index.map(make_splits(recipe, frame).of)
        assert (frame.assign(split=split).groupby("tissue_source_site")["split"].nunique() == 1).all()
        tested.update(frame.index[split == "test"])
    assert tested == Counter(frame.index)


def test_whole_sites_still_balance_the_classes():
    frame = make_frame(BALANCED, num_sites=25)
    shares = []
    for recipe in all_folds("site-preserved:5:0:7"):
        test = frame[frame.index.map(make_splits(recipe, frame).of) == "test"]
        shares.append((test["subtype"] == 1).mean())
        assert len(frame) / 10 < len(test) < len(frame) / 10 * 3
    assert max(shares) - min(shares) < 0.25


def test_tissue_source_sites_of_barcodes():
    frame = make_frame(BALANCED, num_sites=20)
    codes = frame["tissue_source_site"].str[1:].str.zfill(2)
    frame.index = [f"TCGA-{code}-{i:04d}" for i, code in enumerate(codes)]
    expected = make_splits("site-preserved:4:1:7", frame.assign(tissue_source_site=codes.to_numpy()))
    assert make_splits("site-preserved:4:1:7", frame.drop(columns="tissue_source_site")) == expected


@pytest.mark.parametrize("recipe", [STRATIFIED, "kfold:5:1:7", "site-preserved:4:1:7"])
def test_same_seed_same_splits_in_any_order_of_rows(recipe):
    frame = make_frame(BALANCED, num_sites=20)
    splits = make_splits(recipe, frame)
    again = make_splits(recipe, frame.sample(frac=1, random_state=3))
    assert (splits, splits.sha256) == (again, again.sha256)
    other = make_splits(recipe.removesuffix("7") + "8", frame)
    assert splits.sha256 != other.sha256, "another seed repeats the experiment with other splits"


def test_a_split_may_be_left_out():
    splits = make_splits("stratified:0.8,0.2,0:7", make_frame(BALANCED))
    assert Counter(splits.of.values()) == {"train": 100, "val": 25}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        pytest.param("halves:7", "cannot be read; write stratified", id="unknown"),
        pytest.param("kfold:5:7", "cannot be read", id="number-missing"),
        pytest.param("kfold:five:0:7", "cannot be read", id="not-a-number"),
        pytest.param("stratified:0.7,0.2,0.2:7", "must add up to 1", id="fractions-too-large"),
        pytest.param("stratified:1.2,-0.1,-0.1:7", "must add up to 1", id="negative-fraction"),
        pytest.param("stratified:nan,0.5,0.5:7", "must add up to 1", id="nan-fraction"),
        pytest.param(
            "stratified:0.7,0.3:7", "gives 2 fractions; give train, val and test", id="two-fractions"
        ),
        pytest.param("stratified:0,0.5,0.5:7", "leaves nothing to train on", id="no-train"),
        pytest.param("kfold:5:5:7", "fold 5 is none of 0 to 4", id="fold-beyond-k"),
        pytest.param("kfold:2:0:7", "at least 3 folds", id="two-folds"),
        pytest.param("kfold:5:0:-1", "the seed is -1", id="negative-seed"),
        pytest.param(
            "kfold:200:0:7", "class 0 has 81 cases, fewer than the 200 folds", id="more-folds-than-cases"
        ),
        pytest.param(
            "kfold:50:0:7", "cohort brca: class 1 has 40 cases, fewer than the 50 folds", id="class-too-small"
        ),
        pytest.param(
            "stratified:0.98,0.01,0.01:7",
            "class 1 has 40 cases, .* puts none in val",
            id="fraction-too-small-for-class",
        ),
        pytest.param("site-preserved:8:0:7", "come from 6 tissue source sites", id="more-folds-than-sites"),
    ],
)
def test_recipes_that_cannot_be(recipe, message):
    with pytest.raises(InputError, match=message):
        make_splits(recipe, make_frame(BALANCED, num_sites=6))


def test_cases_that_cannot_be_split():
    frame = make_frame(BALANCED, num_sites=20)
    with pytest.raises(InputError, match="has no folds"):
        all_folds(STRATIFIED)
    with pytest.raises(InputError, match="no class has as many as 5 cases with the same event"):
        make_splits("kfold:5:0:7", make_frame({("brca", -1, 0): 4, ("brca", -1, 1): 4}))
    with pytest.raises(InputError, match="case case-0001 is twice in the table"):
        make_splits(STRATIFIED, pd.concat([frame, frame.loc[["case-0001"]]]))
    with pytest.raises(InputError, match=r"case case-\d+ has no tissue source site"):
        make_splits("site-preserved:3:0:7", frame.drop(columns="tissue_source_site"))
    with pytest.raises(InputError, match="case case-0001: its site, subtype or event is missing"):
        make_splits(STRATIFIED, frame.assign(site=frame["site"].where(frame.index != "case-0001")))
    site = frame["tissue_source_site"]
    with pytest.raises(InputError, match="case case-0001 has no tissue source site"):
        make_splits(
            "site-preserved:3:0:7", frame.assign(tissue_source_site=site.where(frame.index != "case-0001"))
        )
    huge = site.where(frame.index < "case-0060", "T0")
    with pytest.raises(InputError, match=r"site T0 has \d+ of the 125 cases, more than half"):
        make_splits("site-preserved:3:0:7", frame.assign(tissue_source_site=huge))


def test_written_splits_come_back(tmp_path):
    splits = Splits({"B": "test", "A": "train", 'a,"b"': "val"}, STRATIFIED)
    path = tmp_path / "new/splits.csv"
    write_splits(path, splits)
    assert read_splits(path) == splits
    assert [file.name for file in path.parent.iterdir()] == ["splits.csv"], "no temporary file is left"
    first = path.read_bytes()
    write_splits(path, dataclasses.replace(splits, of=dict(reversed(splits.of.items()))))
    assert path.read_bytes() == first
    assert pd.read_csv(path, comment="#")["case_id"].tolist() == ["A", "B", 'a,"b"']


def test_an_edited_file_says_so(tmp_path):
    path = tmp_path / "splits.csv"
    write_splits(path, Splits({"A": "train", "B": "test"}, "kfold:5:0:7"))
    path.write_text(path.read_text().replace("B,test", "B,train"))
    with pytest.raises(InputError, match="was edited after it was written by the recipe 'kfold:5:0:7'"):
        read_splits(path)
    path.write_text(path.read_text().partition("\n")[2])
    assert read_splits(path) == Splits({"A": "train", "B": "train"}, "file splits.csv")


def first_part(id):
    return id.split("-")[0]


@pytest.mark.parametrize(
    ("text", "case_of", "expected"),
    [
        pytest.param(
            "case_id,age,split\nA,61,train\nB,,test\nA,61,train\n",
            None,
            {"A": "train", "B": "test"},
            id="many-columns-many-rows",
        ),
        pytest.param(
            "slide_id,split\nA-1,train\nA-2,train\nB-1,val\n",
            first_part,
            {"A": "train", "B": "val"},
            id="slides",
        ),
        pytest.param(
            ",train,val,test\n0,A-1,B-1,C-1\n1,A-2,,\n2,D-1,,\n",
            first_part,
            {"A": "train", "D": "train", "B": "val", "C": "test"},
            id="clam",
        ),
        pytest.param("Train,Valid\nA,B\n", None, {"A": "train", "B": "val"}, id="capital-letters"),
        pytest.param(
            ",train,val\n0,A,B\n1,C,\n", None, {"A": "train", "C": "train", "B": "val"}, id="survpath-mcat"
        ),
        pytest.param(
            "case_id,split\nA ,Train\nB,validation\n C, TEST \n",
            None,
            {"A": "train", "B": "val", "C": "test"},
            id="words-and-spaces",
        ),
        pytest.param("\ufeffcase_id,split\r\nA,train\r\n", None, {"A": "train"}, id="saved-by-excel"),
    ],
)
def test_layouts(tmp_path, text, case_of, expected):
    path = tmp_path / "splits_0.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_splits(path, case_of=case_of) == Splits(expected, "file splits_0.csv")


@pytest.mark.parametrize("name", ["s.tsv", "s.txt", "s.csv.gz", "s.xlsx"])
def test_split_tables_of_any_kind(tmp_path, name):
    table = pd.DataFrame({"case_id": ["A", "B"], "split": ["train", "test"]})
    path = tmp_path / name
    if name == "s.xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, sep="," if "csv" in name else "\t", index=False)
    assert read_splits(path).of == {"A": "train", "B": "test"}


def test_a_list_of_ids_of_another_kind_names_the_file(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("train,val\nP1,P2\n")
    with pytest.raises(InputError, match=r"splits\.csv: slide or case 'P1': is not a TCGA barcode"):
        read_splits(path, case_of=case_of)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/splits\.csv: cannot be written") as error:
        write_splits(tmp_path / "file/splits.csv", Splits({"A": "train"}, STRATIFIED))
    assert "partial" not in str(error.value)


def write_json(folder, name, case_ids):
    rows = [{"case_submitter_id": id, "slide_submitter_id": f"{id}-1", "durations": 1.5} for id in case_ids]
    (folder / name).write_text(json.dumps({"data": rows}))


def test_a_folder_of_the_published_lists(tmp_path):
    write_json(tmp_path, "train_brca_cls_feat.json", ["A", "A", "B"])
    write_json(tmp_path, "train_brca_cls_feat_titan.json", ["A", "B"])
    write_json(tmp_path, "val_brca_cls_feat.json", ["C"])
    write_json(tmp_path, "test_brca_cls_feat.json", ["D"])
    expected = {"A": "train", "B": "train", "C": "val", "D": "test"}
    assert read_splits(tmp_path) == Splits(expected, f"file {tmp_path.name}")
    (tmp_path / "val_brca_cls_feat.json").write_text('{"data": [{"case": "C"}]}')
    with pytest.raises(InputError, match=r"val_brca_cls_feat.json: is not a split of ModalTune"):
        read_splits(tmp_path)
    (tmp_path / "val_brca_cls_feat.json").unlink()
    with pytest.raises(InputError, match=r"has no val_\*\.json"):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("case_id,split\nA,train\nA,test\n", "case A is in both train and test", id="two-splits"),
        pytest.param("slide_id,split\nA-1,train\nA-2,val\n", "case A is in both train and val", id="slides"),
        pytest.param("case_id,split\nA,dev\n", "case A: split 'dev' is none of", id="unknown-split"),
        pytest.param(
            "case_id,split\nA,\n", "case A: split '' is none of .* leave the row out", id="no-split"
        ),
        pytest.param("case_id,split\n", "lists no cases", id="no-rows"),
        pytest.param("patient,fold\nA,1\n", "its columns are patient, fold", id="other-columns"),
        pytest.param(",train,val,test\nA-1,True,False,False\n", "marks ids by True; give", id="clam-bool"),
        pytest.param("case_id,train\nA,1.0\n", "its columns are case_id, train", id="marks-of-cases"),
        pytest.param("", "is empty", id="empty"),
        pytest.param("case_id,split\n,train\nB,test\n", "row 1 has no case_id; fill the cell", id="no-id"),
        pytest.param("train,val,test\nA,B,C,\nD,E,F,\n", "line 2 has 4 cells", id="lists-with-commas"),
        pytest.param("case_id,split\nA,train,\nB,test,\n", "line 2 has 3 cells", id="rows-with-commas"),
        pytest.param("case_id;split\nA;train\n", "separated by semicolons", id="semicolons"),
        pytest.param("case_id,split\nA,train,1\nB,test,2,3\n", "line 2 has 3 cells", id="ragged"),
    ],
)
def test_files_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"splits.csv: .*{message}"):
        read_splits(path, case_of=first_part)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_splits(tmp_path / "none.csv")
    (tmp_path / "splits.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_splits(tmp_path / "splits.xlsx")


@pytest.mark.skipif(not TCGA.is_dir(), reason=f"TCGA benchmark not at {TCGA}")
def test_real_cohort():
    table = pd.read_csv(TCGA / "splits/brca.csv", dtype=str, keep_default_na=False).set_index("case_id")
    assert read_splits(TCGA / "splits/brca.csv").of == table["split"].to_dict()
    frame = pd.DataFrame(
        {
            "site": "brca",
            "subtype": table["primary_class"].astype(int),
            "event": table["vital_status"].replace("", "-1").astype(int),
            "tissue_source_site": table.index.str.split("-").str[1],
        }
    )
    for recipe in all_folds("site-preserved:5:0:7"):
        test = frame[frame.index.map(make_splits(recipe, frame).of) == "test"]
        assert math.isclose(len(test), len(frame) / 5, rel_tol=0.25)
        share, overall = ((rows["subtype"] == 1).mean() for rows in (test, frame))
        assert math.isclose(share, overall, rel_tol=0.25)
