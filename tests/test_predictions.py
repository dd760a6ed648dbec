"""Predictions by hand, at named edges, and what they never look at."""

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.predictions import HeadLabels, predict
from modaltune_jax.types import InputError

SITES = ("brca", "rcc")
LABELS = HeadLabels(
    edges={"brca": (10.0,), "rcc": (20.0,)},
    horizons={"brca": 40.0, "rcc": 60.0},
    class_names=("ductal", "lobular", "clear cell", "papillary", "chromophobe"),
    class_site=(0, 0, 1, 1, 1),
)
COLUMNS = ["case_id", "site", "split"]
SURVIVAL = ["survival_12m", "survival_36m", "survival_60m", "median_survival_months"]
PROBABILITIES = [f"p_{name}" for name in LABELS.class_names]


def cases(site=("brca", "brca", "rcc", "rcc")) -> pd.DataFrame:
    """Both sites have a death at 5 months and follow-up to 50 in training."""
    num = len(site)
    return pd.DataFrame(
        {
            "case_id": [f"TCGA-{i}" for i in range(num)],
            "site": site,
            "split": "train",
            "subtype": -1,
            "time": [5.0, 50.0] * (num // 2),
            "event": [1, 0] * (num // 2),
        }
    )


def draw(seed: int = 0, num: int = 60) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    rng = np.random.default_rng(seed)
    table = cases(rng.choice(SITES, num).tolist())
    table["split"] = rng.choice(["train", "val", "test"], num)
    table["time"], table["event"] = rng.exponential(30.0, num), rng.integers(-1, 2, num)
    table.loc[::9, "time"] = np.nan
    outputs = {
        "embedding": rng.normal(size=(num, 3, 4)),
        "risk": rng.normal(size=num),
        "hazard": rng.normal(size=(num, 2)) - 1.0,
        "similarity": 5.0 * rng.normal(size=(num, 5)),
    }
    return {name: values.astype(np.float32) for name, values in outputs.items()}, table


@pytest.mark.parametrize(
    ("heads", "columns"),
    [
        pytest.param((), [], id="no head"),
        pytest.param(("risk",), ["risk", *SURVIVAL], id="risk"),
        pytest.param(("hazard",), SURVIVAL, id="hazard"),
        pytest.param(("similarity",), ["class", *PROBABILITIES], id="similarity"),
        pytest.param(
            ("risk", "hazard", "similarity"), ["risk", *SURVIVAL, "class", *PROBABILITIES], id="all heads"
        ),
    ],
)
def test_columns_of_the_heads_there_are(heads, columns):
    outputs, table = draw()
    frame = predict({name: outputs[name] for name in ("embedding", *heads)}, table, SITES, LABELS)
    assert list(frame.columns) == COLUMNS + columns
    pd.testing.assert_frame_equal(frame[COLUMNS], table[COLUMNS])


def test_months_name_their_columns():
    outputs, table = draw()
    frame = predict({"risk": outputs["risk"]}, table, SITES, LABELS, months=(1.5, 24.0))
    assert list(frame.columns)[4:] == ["survival_1.5m", "survival_24m", "median_survival_months"]


def test_hazards_by_hand():
    """A hazard of 1/2 a bin; brca ends at 40 months, rcc at 60."""
    frame = predict({"hazard": np.zeros((4, 2), np.float32)}, cases(), SITES, LABELS)
    half = lambda bins: 0.5**bins  # noqa: E731
    brca = [half(1 + 2 / 30), half(1 + 26 / 30), np.nan, 10.0]
    rcc = [half(12 / 20), half(1 + 16 / 40), half(2), 20.0]
    np.testing.assert_allclose(frame[SURVIVAL], [brca, brca, rcc, rcc], rtol=1e-6)


def test_risks_by_hand():
    """Brca: a death at 5 months among hazard ratios 3 and 1, follow-up to 50. Rcc: ratios 1 and 1."""
    risk = np.log(np.array([3.0, 1.0, 1.0, 1.0], np.float32))
    frame = predict({"risk": risk}, cases(), SITES, LABELS, months=(4.0, 5.0, 50.0, 51.0))
    np.testing.assert_array_equal(frame["risk"], risk)
    survival = frame[["survival_4m", "survival_5m", "survival_50m", "survival_51m"]]
    after = np.exp([-3 / 4, -1 / 4, -1 / 2, -1 / 2])
    expected = np.stack([np.ones(4), after, after, np.full(4, np.nan)], axis=1)
    np.testing.assert_allclose(survival, expected, rtol=1e-6)
    np.testing.assert_array_equal(frame["median_survival_months"], [5.0, np.nan, np.nan, np.nan])


def test_similarities_by_hand():
    """The most similar class of all is another site's."""
    similarity = np.log(np.array([[1.0, 3.0, 9.0, 9.0, 9.0], [9.0, 9.0, 1.0, 2.0, 1.0]], np.float32))
    frame = predict({"similarity": similarity}, cases(("brca", "rcc")), SITES, LABELS)
    assert frame["class"].tolist() == ["lobular", "papillary"]
    expected = [[0.25, 0.75, np.nan, np.nan, np.nan], [np.nan, np.nan, 0.25, 0.5, 0.25]]
    np.testing.assert_allclose(frame[PROBABILITIES], expected, rtol=1e-6)


def test_classes_of_one_name_share_a_column_and_may_be_in_any_order():
    labels = HeadLabels({}, {}, ("mixed", "clear cell", "mixed"), (1, 1, 0))
    similarity = np.array([[1.0, 5.0, 0.0], [2.0, 1.0, 9.0]], np.float32)
    frame = predict({"similarity": similarity}, cases(("brca", "rcc")), SITES, labels)
    assert frame["class"].tolist() == ["mixed", "mixed"]
    assert list(frame.columns) == [*COLUMNS, "class", "p_mixed", "p_clear cell"]
    share = 1.0 / (1.0 + np.exp(-1.0))
    np.testing.assert_allclose(
        frame[["p_mixed", "p_clear cell"]], [[1, np.nan], [share, 1 - share]], rtol=1e-6
    )


@pytest.mark.parametrize("heads", [("risk",), ("hazard",)])
def test_survival_falls_with_the_months_and_passes_a_half_at_the_median(heads):
    outputs, table = draw(1)
    months = np.arange(0.0, 60.0, 0.5)
    frame = predict({name: outputs[name] for name in heads}, table, SITES, LABELS, months=months.tolist())
    survival = frame.filter(like="survival_").drop(columns="median_survival_months").to_numpy()
    assert (survival[:, 0] == 1.0).all()
    assert (np.diff(survival, axis=1)[~np.isnan(survival[:, 1:])] <= 0.0).all()
    median = frame["median_survival_months"].to_numpy()
    assert 0 < np.isnan(median).sum() < len(median)
    for curve, month in zip(survival, median, strict=True):
        is_later = months > month  # never, where the median is not reached
        assert (curve[~is_later & (months != month) & ~np.isnan(curve)] > 0.5).all()
        assert (curve[is_later & ~np.isnan(curve)] <= 0.5).all()


def test_survival_is_that_of_the_hazard_head_where_there_is_one():
    outputs, table = draw(9)
    hazard, risk = {"hazard": outputs["hazard"]}, {"risk": outputs["risk"]}
    both = predict({**risk, **hazard}, table, SITES, LABELS)
    pd.testing.assert_frame_equal(both.drop(columns="risk"), predict(hazard, table, SITES, LABELS))
    assert not both[SURVIVAL].equals(predict(risk, table, SITES, LABELS)[SURVIVAL])


def test_probabilities_sum_to_1_over_the_classes_of_the_site():
    outputs, table = draw(2)
    frame = predict({"similarity": outputs["similarity"]}, table, SITES, LABELS)
    np.testing.assert_allclose(frame[PROBABILITIES].sum(axis=1), 1.0, rtol=1e-12)
    known = frame[PROBABILITIES].notna().to_numpy()
    np.testing.assert_array_equal(known, LABELS.is_own((table["site"] == "rcc").to_numpy().astype(int)))
    best = frame[PROBABILITIES].idxmax(axis=1).str.removeprefix("p_")
    assert best.tolist() == frame["class"].tolist()


def test_nothing_of_validation_or_test_enters_the_baseline():
    outputs, table = draw(3)
    risk = {"risk": outputs["risk"]}
    train = (table["split"] == "train").to_numpy()
    before = predict(risk, table, SITES, LABELS)
    held_out = table.copy()
    held_out.loc[~train, ["time", "event"]] = [1.0, 1]
    pd.testing.assert_frame_equal(predict(risk, held_out, SITES, LABELS), before)
    other = {"risk": np.where(train, outputs["risk"], -outputs["risk"])}
    pd.testing.assert_frame_equal(predict(other, table, SITES, LABELS)[train], before[train])
    changed = table.copy()
    changed.loc[train, "event"] = 1
    assert not predict(risk, changed, SITES, LABELS)[~train].equals(before[~train])


def test_a_site_has_a_baseline_of_its_own():
    outputs, table = draw(4)
    risk, brca = {"risk": outputs["risk"]}, (table["site"] == "brca").to_numpy()
    alone = predict({"risk": outputs["risk"][brca]}, table[brca], SITES, LABELS)
    both = predict(risk, table, SITES, LABELS)[brca]
    pd.testing.assert_frame_equal(alone, both.reset_index(drop=True))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"event": 0}, id="no deaths"),
        pytest.param({"event": -1}, id="events unknown"),
        pytest.param({"time": np.nan}, id="times unknown"),
        pytest.param({"split": "test"}, id="no training case"),
    ],
)
def test_a_site_without_train_deaths_has_risks_but_no_survival(changes):
    outputs, table = draw(5)
    rcc = (table["site"] == "rcc").to_numpy()
    before = predict({"risk": outputs["risk"]}, table, SITES, LABELS)
    for name, value in changes.items():
        table.loc[rcc, name] = value
    frame = predict({"risk": outputs["risk"]}, table, SITES, LABELS)
    np.testing.assert_array_equal(frame["risk"], outputs["risk"])
    assert frame.loc[rcc, SURVIVAL].isna().all(axis=None)
    pd.testing.assert_frame_equal(frame[~rcc], before[~rcc])


def test_a_site_without_bins_or_classes_has_neither():
    outputs, table = draw(6)
    labels = HeadLabels({"brca": (10.0,)}, {"brca": 40.0}, ("ductal", "lobular"), (0, 0))
    outputs = {"hazard": outputs["hazard"], "similarity": outputs["similarity"][:, :2]}
    frame = predict(outputs, table, SITES, labels)
    rcc = (table["site"] == "rcc").to_numpy()
    assert frame.loc[rcc, [*SURVIVAL, "p_ductal", "p_lobular"]].isna().all(axis=None)
    assert (frame.loc[rcc, "class"] == "").all()
    assert frame.loc[~rcc, ["survival_12m", "p_ductal", "p_lobular"]].notna().all(axis=None)
    assert frame.loc[~rcc, "class"].isin(["ductal", "lobular"]).all()


@pytest.mark.parametrize(
    ("edges", "horizon", "expected"),
    [
        pytest.param((), 40.0, [0.5 ** (12 / 40), 0.5 ** (36 / 40), np.nan, 40.0], id="one bin"),
        pytest.param((30.0,), 30.0, [0.5 ** (12 / 30), np.nan, np.nan, 30.0], id="last bin without length"),
    ],
)
def test_bins_at_the_edge(edges, horizon, expected):
    labels = HeadLabels({"brca": edges}, {"brca": horizon}, (), ())
    frame = predict(
        {"hazard": np.zeros((2, len(edges) + 1), np.float32)}, cases(("brca",) * 2), SITES, labels
    )
    np.testing.assert_allclose(frame[SURVIVAL], [expected] * 2, rtol=1e-6)


def test_cases_that_were_not_embedded_are_left_out_and_enter_nothing():
    outputs, table = draw(7)
    kept = table.index % 3 != 0
    expected = predict({name: values[kept] for name, values in outputs.items()}, table[kept], SITES, LABELS)
    for values in outputs.values():
        values[~kept] = np.nan
    assert expected["case_id"].tolist() == table.loc[kept, "case_id"].tolist()
    pd.testing.assert_frame_equal(predict(outputs, table, SITES, LABELS), expected)


def test_a_head_that_diverged_predicts_nothing():
    outputs, table = draw(8)
    outputs["similarity"][:] = np.nan
    frame = predict(outputs, table, SITES, LABELS)
    assert len(frame) == len(table)
    assert (frame["class"] == "").all()
    assert frame[PROBABILITIES].isna().all(axis=None)
    assert frame["survival_12m"].notna().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"risk": np.zeros(3)}, "3 rows of risk for 4 cases", id="rows"),
        pytest.param(
            {"similarity": np.zeros((4, 3))}, "similarity has logits of 3 classes, of which 5", id="classes"
        ),
        pytest.param({"hazard": np.zeros((4, 4))}, "hazards of 4 bins, but brca has 2", id="bins"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        predict(changes, cases(), SITES, LABELS)
