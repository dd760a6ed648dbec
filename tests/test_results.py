"""Tables of results: as files to the last bit, and as text with the spread over seeds."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import results


def table(**changes) -> pd.DataFrame:
    """Two variants and two seeds on two splits; "NA" is a site like any other."""
    rows = [
        {
            "split": split,
            "site": site,
            "target": "subtype",
            "task": "diagnosis",
            "metric": "balanced_accuracy",
            "value": 0.1 + 0.2 * seed + (variant == "full") / 3 + (split == "val") * 0.01,
            "num": 7,
            "num_events": 0,
            "reason": "",
            "variant": variant,
            "seed": seed,
        }
        for variant in ("full", "image_only")
        for seed in (0, 1)
        for split in ("val", "test")
        for site in ("brca", "NA", "overall")
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_csv_and_json_hold_the_same_and_nothing_else_is_left(tmp_path):
    missing = table()
    missing.loc[3, ["value", "reason"]] = (math.nan, "one class only")
    results.write(missing, tmp_path / "deep" / "results")
    pd.testing.assert_frame_equal(results.read(tmp_path / "deep" / "results"), missing, check_exact=True)
    records = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert records[3]["value"] is None
    assert records[3]["reason"] == "one class only"
    assert [record["site"] for record in records] == missing["site"].tolist()
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["results.csv", "results.json"]


def test_embeddings_keep_their_cases(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    cases = pd.DataFrame({"case_id": ["TCGA-1", "TCGA-22"], "split": ["train", "test"], "site": ["a", "b"]})
    results.save_embeddings(tmp_path / "embeddings.npz", values, cases)
    with np.load(tmp_path / "embeddings.npz") as saved:
        np.testing.assert_array_equal(saved["embeddings"], values)
        assert saved["case_id"].tolist() == ["TCGA-1", "TCGA-22"]
        assert saved["split"].tolist() == ["train", "test"]
        assert saved["site"].tolist() == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz"]


def test_mean_and_spread_over_seeds():
    summary = results.over_seeds(table())
    assert len(summary) == 2 * 2 * 3
    row = summary[
        (summary.variant == "image_only") & (summary.split == "test") & (summary.site == "NA")
    ].iloc[0]
    assert row["mean"] == pytest.approx(0.2)
    assert row["sd"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert row["num_seeds"] == 2


def test_one_seed_has_no_spread():
    summary = results.over_seeds(table().query("seed == 0"))
    assert summary["sd"].isna().all()
    assert set(summary["num_seeds"]) == {1}


def test_text():
    lines = results.to_text(table()).splitlines()
    assert lines[0] == "subtype: balanced accuracy on test, 2 seeds"
    assert lines[1].split() == ["full", "image_only"]
    assert lines[2].split() == ["brca", "0.533", "±", "0.141", "0.200", "±", "0.141"]
    assert [line.split()[0] for line in lines[2:]] == ["brca", "NA", "overall"]


def test_text_of_one_seed_and_of_what_cannot_be_estimated():
    lines = results.to_text(table(value=math.nan).query("seed == 0"), split="val").splitlines()
    assert lines[0] == "subtype: balanced accuracy on val"
    assert lines[2].split() == ["brca", "-", "-"]
