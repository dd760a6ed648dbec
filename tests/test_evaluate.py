"""The command on one tiny run: its own cases, cases of elsewhere, several runs, wrong input."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import common
from modaltune_jax import case_scores, command, evaluate, experiment
from modaltune_jax.config import unpack
from modaltune_jax.evaluation.aggregation import out_of_fold, table_of_runs
from modaltune_jax.evaluation.finished_run import read_run
from modaltune_jax.evaluation.groups import groups_of
from modaltune_jax.evaluation.measures import Bootstrap
from modaltune_jax.evaluation.out_of_distribution import same_classes
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.records import Records, write
from modaltune_jax.types import InputError
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A finished run with heads in work/full/seed0, trained for two epochs."""
    folder = tmp_path_factory.mktemp("evaluate")
    config = tiny.smallest(tiny.config_dict(folder, "mean_pool"))
    config.loss = common.loss(distillation=1.0, cox=0.1, text_similarity=0.1)
    config.loss.cox.memory = 6
    experiment.run(unpack(config), folder / "work", is_training=True)
    return folder


@pytest.fixture(scope="module")
def elsewhere(folder) -> Path:
    """The run's own test cases of three sites under other names, with other genes around its own ones."""
    own = Records(folder / "records")
    order = np.random.default_rng(0).permutation(len(own.genes))
    cases = [
        dataclasses.replace(
            case,
            id=f"other {case.id}",
            expression=None if case.expression is None else np.append(case.expression[order], np.float32(7)),
        )
        for case in own
        if case.split != "train" and case.site in own.sites[:3]
    ]
    write(
        folder / "elsewhere",
        cases,
        genes=[*(own.genes[i] for i in order), "ANOTHER"],
        gene_sets=GeneSets(("one",), (np.array([0], np.int32),)),
        # The last of them is told by other classes than the run knows.
        specs=[*own.specs[:2], dataclasses.replace(own.specs[2], classes=("this", "that", "neither"))],
        source="test",
        encoder=own.encoder,
        variables=own.variables,
    )
    return folder / "elsewhere"


@pytest.fixture(autouse=True)
def as_in_tests(monkeypatch):
    monkeypatch.setattr(command, "prepare_jax", lambda verbosity: None)


def values(table: pd.DataFrame, **where: str) -> pd.Series:
    chosen = table[(table["variable"] == "")]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    return chosen.set_index(["target", "method", "site", "metric"])["value"]


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values={"value": "", "low": "", "high": "", "sd": ""})


def test_values_of_a_run_are_those_of_its_own_tables(folder, capsys):
    evaluate.main([str(folder / "work/full/seed0"), "--bootstrap=20", "--splits", "test"])
    out = folder / "work/full/seed0/evaluation"
    table = read(out / "results.csv")
    probes = read(folder / "work/full/seed0/probes.csv")
    expected = probes[probes["split"] == "test"].set_index(["target", "method", "site", "metric"])["value"]
    np.testing.assert_allclose(values(table).reindex(expected.index), expected, atol=1e-12)
    assert (table["low"].dropna() <= table["high"].dropna()).all()
    assert (table["value"].notna() | (table["reason"] != "")).all()
    assert set(table["variable"]) >= {"", "age"}
    assert {"auroc", "uno_c", "integrated_brier"} <= set(table["metric"])
    printed = capsys.readouterr().out
    assert (out / "results.md").read_text() in printed + "\n"
    for file in ("results.json", "per_run.csv", "subgroups.md", "confusion.csv"):
        assert (out / file).exists()
    pictures = {path.stem.rpartition("-")[2] for path in (out / "figures").iterdir()}
    assert pictures == {"kaplan_meier", "calibration", "roc"}


def test_a_cohort_of_elsewhere_by_both_protocols(folder, elsewhere):
    out = folder / "out"
    run = folder / "work/full/seed0"
    flags = [f"--records={elsewhere}", "--bootstrap=5", "--no-figures", f"--out={out}", "--splits", "test"]
    evaluate.main([str(run), *flags])
    table = read(out / "results.csv")
    refitted = table[table["protocol"] == "refitted"]
    assert refitted[refitted["method"] == "probe"]["value"].isna().all(), "it has no training case"
    assert refitted["reason"].str.contains("training").any()
    # Nothing is refitted, and the cases are the run's own test cases: so are the values.
    scores = case_scores.read(run / case_scores.NAME)
    own = scores[(scores["split"] == "test") & scores["site"].isin(Records(elsewhere).sites)]
    pooled = own[(own["scope"] == "pooled") & (own["target"] == "survival") & (own["method"] == "probe")]
    expected = groups_of(
        scores[scores["split"] == "train"]
        .pipe(lambda train: pd.concat([train, pooled]))
        .assign(survival_12m=np.nan, survival_36m=np.nan, survival_60m=np.nan),
        "as trained",
        ("test",),
        Bootstrap(0),
    )
    (harrell,) = (
        group.measured[0].estimate.value
        for group in expected
        if (group.key.target, group.key.method, group.key.site) == ("survival", "probe", "pooled")
    )
    found = values(table, protocol="as trained", split="test")
    assert found["survival", "probe", "pooled", "harrell_c"] == pytest.approx(harrell, abs=1e-9)
    inside = read(folder / "work/full/seed0/probes.csv").query("split == 'test'")
    inside = inside.set_index(["target", "method", "site", "metric"])["value"]
    sites = Records(elsewhere).sites
    for method in ("probe", "similarity"):
        for site in sites[:2]:
            key = ("subtype", method, site, "balanced_accuracy")
            np.testing.assert_allclose(found[key], inside[key])
        assert ("subtype", method, sites[2], "balanced_accuracy") not in found.index, "other classes"
    assert set(table["split"]) == {"test", "all"}


def test_sites_with_the_same_classes_are_found(folder, elsewhere):
    own, other = Records(folder / "records"), Records(elsewhere)
    assert same_classes(own, other) == {site: site for site in own.sites[:2]}


def test_seeds_are_averaged_and_share_their_draws(folder):
    run, copy = folder / "work/full/seed0", folder / "work/full/seed1"
    shutil.copytree(run, copy)
    out = folder / "two"
    evaluate.main([str(run), str(copy), "--bootstrap=10", "--no-figures", f"--out={out}", "--splits", "test"])
    both, per_run = read(out / "results.csv"), read(out / "per_run.csv")
    assert set(per_run["run"]) == {"work/full/seed0", "work/full/seed1"}
    one = per_run[per_run["run"] == "work/full/seed0"]
    for column in ("value", "low", "high", "num"):
        pd.testing.assert_series_equal(both[column], one[column])
    assert (both["sd"].dropna() == 0).all()
    assert set(both["num_runs"]) == {0, 2}


def test_folds_are_scored_out_of_fold_together(folder):
    scores = read_run(folder / "work/full/seed0").scores
    test = scores["split"] == "test"
    is_first = scores["case_id"].rank(method="dense") % 2 == 0
    bootstrap, protocol = Bootstrap(5), "in distribution"
    folds = [
        groups_of(scores[~test | (is_first == first)], protocol, ("test",), bootstrap)
        for first in (True, False)
    ]
    whole = groups_of(scores, protocol, ("test",), bootstrap)
    together = table_of_runs([out_of_fold(folds, bootstrap)], bootstrap)
    expected = table_of_runs([whole], bootstrap).query("site != 'overall' or target == 'site'")
    assert set(together["split"]) == {"test out of fold"}
    # The folds are of one run, so together they are the run; draws go by the name of the split.
    pd.testing.assert_frame_equal(
        together.drop(columns=["split", "low", "high"]),
        expected.drop(columns=["split", "low", "high"]).reset_index(drop=True),
    )
    table = table_of_runs(folds, bootstrap)
    assert table[table["num_runs"] == 2]["low"].isna().all()
    assert out_of_fold([whole, whole], bootstrap) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["nowhere"], "holds no run", id="no run"),
        pytest.param(["RUN", "RUN"], "given twice", id="twice"),
        pytest.param(["UNFINISHED"], r"not finished \(stopped\)", id="not finished"),
        pytest.param(["RUN", "--bootstrap=-1"], "number of draws", id="bootstrap"),
        pytest.param(["RUN", "--level=95"], "between 0 and 1", id="level"),
        pytest.param(["RUN", "--records=nowhere"], "holds no records", id="no records"),
        pytest.param(["RUN", "--records=OWN"], "are training cases of the run", id="own cases"),
        pytest.param(["RUN", "--records=WIDE"], "wide, those that the run", id="another tile encoder"),
        pytest.param(["RUN", "--records=GENES"], "has none of the 40 genes", id="other genes"),
    ],
)
def test_wrong_input_is_refused(folder, elsewhere, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = folder / "work/full/seed0"
    places = {"RUN": run, "OWN": folder / "records", "UNFINISHED": tmp_path / "full/seed0"}
    places["UNFINISHED"].mkdir(parents=True)
    shutil.copy(run / "config.json", places["UNFINISHED"])
    (places["UNFINISHED"] / "manifest.json").write_text(json.dumps({"status": "stopped"}))
    for name, change in (("WIDE", {"feature_dim": 99}), ("GENES", {"genes": [f"X{i}" for i in range(41)]})):
        places[name] = tmp_path / name
        shutil.copytree(elsewhere, places[name])
        metadata = json.loads((places[name] / "metadata.json").read_text())
        (places[name] / "metadata.json").write_text(json.dumps(metadata | change))
    words = []
    for argument in arguments:
        flag, equals, name = argument.rpartition("=")
        words.append(f"{flag}{equals}{places.get(name, name)}")
    with pytest.raises(InputError, match=message):
        evaluate.main(words)
