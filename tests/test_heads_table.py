"""Scores of the heads: by hand, beside the probes, and what cannot be estimated."""

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.heads_table import HEADS, heads_table
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.predictions import HeadLabels
from modaltune_jax.probes import format_table, probe_table
from modaltune_jax.scores import COLUMNS, OVERALL, POOLED
from modaltune_jax.types import InputError

SITES = ("brca", "rcc")
LABELS = HeadLabels(
    edges={"brca": (10.0,), "rcc": (20.0,)},
    horizons={"brca": 40.0, "rcc": 60.0},
    class_names=("ductal", "lobular", "clear cell", "papillary", "chromophobe"),
    class_site=(0, 0, 1, 1, 1),
)


def draw(seed: int = 0, num: int = 200) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Outputs that know something of every label."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, 2, num)
    risk = rng.normal(size=num)
    table = pd.DataFrame(
        {
            "case_id": [f"TCGA-{i}" for i in range(num)],
            "split": rng.choice(["train", "val", "test"], num),
            "site": np.array(SITES)[site],
            "subtype": rng.integers(-1, 2 + site),
            "time": rng.exponential(np.exp(-4.0 * risk)) * 30.0,
            "event": rng.integers(-1, 2, num),
        }
    )
    table.loc[::17, "time"] = np.nan
    own = np.where(table["subtype"] >= 0, 2 * site + table["subtype"], 0)
    outputs = {
        "embedding": rng.normal(size=(num, 3, 4)),
        "risk": risk,
        "hazard": risk[:, None] + np.array([-1.0, 0.0]),
        "classes": 3.0 * np.eye(5)[own] + rng.normal(size=(num, 5)),
        "similarity": 3.0 * np.eye(5)[own] + rng.normal(size=(num, 5)),
    }
    return {name: values.astype(np.float32) for name, values in outputs.items()}, table


def small(**changes) -> pd.DataFrame:
    """Six test cases, three a site; the last one of rcc has no label and no known survival."""
    table = pd.DataFrame(
        {
            "split": "test",
            "site": ["brca"] * 3 + ["rcc"] * 3,
            "subtype": [0, 1, 1, 0, 2, -1],
            "time": [1.0, 2.0, 3.0, 1.0, 2.0, np.nan],
            "event": [1, 1, 0, 1, 0, -1],
        }
    )
    return table.assign(**changes)


def values(result: pd.DataFrame, method: str, split: str = "test") -> dict[str, float]:
    rows = result[(result["method"] == method) & (result["split"] == split)]
    return dict(zip(rows["site"], rows["value"], strict=True))


def reasons(result: pd.DataFrame, method: str) -> dict[str, str]:
    rows = result[(result["method"] == method) & (result["split"] == "test")]
    return dict(zip(rows["site"], rows["reason"], strict=True))


def test_risks_by_hand():
    """Brca: 2 of 3 pairs right. Rcc: 1 of 1. Across sites: 2 of 4; the two deaths at month 1 are no pair."""
    risk = np.array([5.0, 6.0, 1.0, 9.0, 8.0, 0.0], np.float32)
    result = heads_table({"risk": risk}, small(), SITES, LABELS, ("test",))
    expected = {"brca": 2 / 3, "rcc": 1.0, POOLED: 5 / 8, OVERALL: 5 / 6}
    assert values(result, "risk") == pytest.approx(expected)
    assert result["num"].tolist() == [3, 2, 5, 5]
    assert result["num_events"].tolist() == [2, 1, 3, 3]
    assert (result["reason"] == "").all()


def test_hazards_by_hand():
    """Sums of survival over the bins. Brca: 0.5 + 0.25, 1 + 0, 1 + 0.5. Rcc: 0 + 0, 0.5 + 0."""
    hazard = np.array([[0, 0], [-9, 99], [-9, 0], [9, 0], [0, 9], [np.nan, np.nan]], np.float32)
    result = heads_table({"hazard": hazard}, small(), SITES, LABELS, ("test",))
    found = values(result, "hazard")
    assert np.isnan(found.pop(POOLED))
    assert found == pytest.approx({"brca": 1.0, "rcc": 1.0, OVERALL: 1.0})
    result = heads_table({"hazard": hazard[[1, 0, 2, 4, 3, 5]]}, small(), SITES, LABELS, ("test",))
    expected = {"brca": 2 / 3, "rcc": 0.0, OVERALL: 1 / 3}
    assert {site: values(result, "hazard")[site] for site in expected} == pytest.approx(expected)


def test_similarities_by_hand():
    """Classes of other sites are never chosen, whatever their similarity."""
    similarity = np.full((6, 5), 9.0, np.float32)
    similarity[:3, :2] = [[1, 0], [1, 0], [0, 1]]
    similarity[3:, 2:] = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    result = heads_table({"similarity": similarity}, small(), SITES, LABELS, ("test",))
    expected = {"brca": 0.75, "rcc": 1.0, POOLED: (1 + 0.5 + 1 + 1) / 4, OVERALL: 0.875}
    assert values(result, "similarity") == pytest.approx(expected)
    assert result["num"].tolist() == [3, 2, 5, 5]


def test_rows_are_those_of_the_probes():
    outputs, table = draw()
    result = heads_table(outputs, table, SITES, LABELS)
    probes = probe_table(outputs["embedding"], table, SITES)
    assert list(result.columns) == list(probes.columns) == list(COLUMNS)
    assert set(probes["method"]) == {"probe"}
    for method, target in HEADS.items():
        head, probe = result[result["method"] == method], probes[probes["target"] == target]
        same = ["split", "site", "target", "task", "metric", "num", "num_events"]
        given = head["reason"].eq("").to_numpy()
        pd.testing.assert_frame_equal(
            head.loc[given, same].reset_index(drop=True), probe.loc[given, same].reset_index(drop=True)
        )
    both = pd.concat([probes, result], ignore_index=True)
    assert "survival: harrell_c of the risk head on the survival embedding" in format_table(both)
    assert "survival:hazard, pooled, test: sites have bins of their own" in format_table(both)


def test_outputs_that_know_are_seen_to_and_splits_are_scored_apart():
    outputs, table = draw(1)
    result = heads_table(outputs, table, SITES, LABELS)
    assert result["value"].min() > 0.7
    known = (table["time"].notna() & (table["event"] >= 0) & (table["split"] == "val")).to_numpy()
    c = harrell_c(outputs["risk"][known], table["time"].to_numpy()[known], table["event"].to_numpy()[known])
    assert values(result, "risk", "val")[POOLED] == c.value
    moved = table.assign(event=np.where(table["split"] == "val", table["event"], 0))
    assert values(heads_table(outputs, moved, SITES, LABELS), "risk", "val") == values(result, "risk", "val")


@pytest.mark.parametrize(
    "heads",
    [
        pytest.param((), id="no head"),
        pytest.param(("risk",), id="one head"),
        pytest.param(("hazard", "classes", "similarity"), id="three heads"),
    ],
)
def test_only_heads_that_are_there_have_rows(heads):
    outputs, table = draw()
    given = {name: outputs[name] for name in ("embedding", *heads)}
    result = heads_table(given, table, SITES, LABELS)
    assert result["method"].unique().tolist() == list(heads)
    assert list(result.columns) == list(COLUMNS)


@pytest.mark.parametrize(
    ("outputs", "task"),
    [
        pytest.param({"embedding": np.zeros((6, 1, 4))}, "general", id="one task"),
        pytest.param({"embedding": np.zeros((6, 3, 4))}, "survival", id="three tasks"),
        pytest.param({}, "survival", id="no embedding"),
    ],
)
def test_the_task_is_the_embedding_that_the_head_reads(outputs, task):
    result = heads_table({"risk": np.zeros(6), **outputs}, small(), SITES, LABELS)
    assert set(result["task"]) == {task}


@pytest.mark.parametrize(
    ("edges", "sites", "is_pooled"),
    [
        pytest.param({"brca": (10.0,), "rcc": (20.0,)}, SITES, False, id="bins of their own"),
        pytest.param({"brca": (10.0,), "rcc": (10.0,)}, SITES, True, id="the same bins"),
        pytest.param({"brca": (10.0,)}, SITES, False, id="a site without bins"),
        pytest.param({}, SITES, False, id="bins unknown"),
        pytest.param({}, ("brca",), True, id="one site"),
    ],
)
def test_hazards_are_pooled_over_sites_of_the_same_bins_only(edges, sites, is_pooled):
    outputs, table = draw()
    labels = HeadLabels(edges, {}, (), ())
    result = heads_table({"hazard": outputs["hazard"]}, table, sites, labels)
    assert np.isfinite(values(result, "hazard")[POOLED]) == is_pooled
    reason = "" if is_pooled else "sites have bins of their own, in which risks cannot be compared"
    assert reasons(result, "hazard")[POOLED] == reason


@pytest.mark.parametrize(
    ("changes", "method", "reason"),
    [
        pytest.param({"event": 0}, "risk", "no death seen", id="site without deaths"),
        pytest.param({"event": -1}, "risk", "no case", id="events unknown"),
        pytest.param({"time": np.nan}, "hazard", "no case", id="times unknown"),
        pytest.param({"subtype": -1}, "similarity", "no case", id="no labels"),
        pytest.param({"subtype": 1}, "similarity", "one class only", id="one class"),
        pytest.param({"split": "train"}, "risk", "no case", id="no case in the split"),
    ],
)
def test_a_site_that_cannot_be_estimated_has_a_reason_and_the_others_their_values(changes, method, reason):
    outputs, table = draw()
    before = values(heads_table(outputs, table, SITES, LABELS), method)
    for name, value in changes.items():
        table.loc[table["site"] == "rcc", name] = value
    result = heads_table(outputs, table, SITES, LABELS)
    after = values(result, method)
    assert np.isnan(after["rcc"])
    assert reasons(result, method)["rcc"] == reason
    assert after["brca"] == before["brca"] == after[OVERALL]
    assert reasons(result, method)[OVERALL] == "without rcc"


def test_a_class_of_one_member_counts_as_much_as_the_others():
    similarity = np.zeros((6, 5), np.float32)
    similarity[:, 0] = 1.0  # ductal, the class of one case of three
    result = heads_table({"similarity": similarity}, small(), SITES, LABELS, ("test",))
    assert values(result, "similarity")["brca"] == 0.5


def test_a_site_without_classes_has_no_case():
    outputs, table = draw()
    labels = HeadLabels({}, {}, ("ductal", "lobular"), (0, 0))
    result = heads_table({"similarity": outputs["similarity"][:, :2]}, table, SITES, labels)
    assert reasons(result, "similarity")["rcc"] == "no case"
    assert values(result, "similarity")[POOLED] == values(result, "similarity")["brca"]


def test_cases_that_were_not_embedded():
    """A split that was not embedded has no scores; the others are as they were."""
    outputs, table = draw()
    before = heads_table(outputs, table, SITES, LABELS)
    is_val = (table["split"] == "val").to_numpy()
    outputs = {
        name: np.where(is_val.reshape(-1, *[1] * (v.ndim - 1)), v, np.nan) for name, v in outputs.items()
    }
    after = heads_table(outputs, table, SITES, LABELS)
    pd.testing.assert_frame_equal(after[after["split"] == "val"], before[before["split"] == "val"])
    test = after[(after["split"] == "test") & (after["site"] != OVERALL)]
    assert test["value"].isna().all()
    assert set(test["reason"]) == {
        "predictions are not finite",
        "sites have bins of their own, in which risks cannot be compared",
    }


def test_cases_of_other_sites_are_ignored():
    outputs, table = draw()
    brca = (table["site"] == "brca").to_numpy()
    alone = heads_table({k: v[brca] for k, v in outputs.items()}, table[brca], ("brca",), LABELS)
    pd.testing.assert_frame_equal(alone, heads_table(outputs, table, ("brca",), LABELS))


def test_wrong_tables_are_refused():
    outputs, table = draw()
    with pytest.raises(InputError, match=r"lacks column\(s\) event"):
        heads_table(outputs, table.drop(columns="event"), SITES, LABELS)
    with pytest.raises(InputError, match="200 rows of embedding for 199 cases"):
        heads_table(outputs, table[1:], SITES, LABELS)
