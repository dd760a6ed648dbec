"""Tables of results: as files to the last bit, and as text with the spread over seeds."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import results
from modaltune_jax.types import InputError


def table(methods: tuple[str, ...] = ("probe",), **changes) -> pd.DataFrame:
    """Two variants and two seeds on two splits; "NA" is a site like any other."""
    rows = [
        {
            "split": split,
            "site": site,
            "target": "subtype",
            "task": "diagnosis",
            "method": method,
            "metric": "balanced_accuracy",
            "value": 0.1 + 0.2 * seed + (variant == "full") / 3 + (split == "val") * 0.01 + 0.05 * i,
            "num": 7,
            "num_events": 0,
            "reason": "",
            "variant": variant,
            "seed": seed,
        }
        for variant in ("full", "image_only")
        for seed in (0, 1)
        for split in ("val", "test")
        for i, method in enumerate(methods)
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


def test_a_table_of_before_there_were_heads_is_refused(tmp_path):
    results.write(table().drop(columns="method"), tmp_path / "probes")
    with pytest.raises(InputError, match=r"probes.csv has no column method.*another --workdir, or remove"):
        results.read(tmp_path / "probes")


def test_embeddings_keep_their_cases(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    cases = pd.DataFrame({"case_id": ["TCGA-1", "TCGA-22"], "split": ["train", "test"], "site": ["a", "b"]})
    risk = np.array([0.5, np.nan], np.float32)
    results.save_embeddings(tmp_path / "embeddings.npz", values, cases, risk=risk)
    with np.load(tmp_path / "embeddings.npz") as saved:
        np.testing.assert_array_equal(saved["risk"], risk)
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


def test_heads_are_columns_beside_the_probes_of_their_variant():
    both = table(("probe", "similarity"))
    summary = results.over_seeds(both)
    labels = ["full", "full [similarity]", "image_only", "image_only [similarity]"]
    assert summary["label"].unique().tolist() == labels
    assert len(summary) == 2 * 2 * 2 * 3
    assert set(summary["num_seeds"]) == {2}
    lines = results.to_text(both).splitlines()
    assert lines[1].split() == " ".join(labels).split()
    means = [cell for cell in lines[2].split() if cell not in ("±", "0.141")]
    assert means == ["brca", "0.533", "0.583", "0.200", "0.250"]


def test_a_block_has_the_columns_of_its_target_only():
    survival = table(("risk",)).assign(target="survival", metric="harrell_c")
    blocks = results.to_text(pd.concat([table(), survival])).split("\n\n")
    assert [block.splitlines()[1].split() for block in blocks] == [
        ["full", "image_only"],
        ["full", "[risk]", "image_only", "[risk]"],
    ]


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
