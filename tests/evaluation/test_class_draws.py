"""All draws at once are what the metrics say draw by draw."""

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.evaluation import class_draws
from modaltune_jax.evaluation.measures import Bootstrap, measure
from modaltune_jax.evaluation.survival_columns import MONTHS, survival_columns
from modaltune_jax.metrics import classification, survival
from modaltune_jax.metrics.intervals import draw_cases
from modaltune_jax.metrics.survival_probability import integrated_brier


@pytest.mark.parametrize(
    ("num_classes", "decimals"),
    [
        pytest.param(2, 8, id="two classes"),
        pytest.param(4, 8, id="four"),
        pytest.param(3, 1, id="tied scores"),
    ],
)
def test_draws_of_classes(num_classes, decimals):
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes, size=30)
    predicted = np.where(rng.random(30) < 0.6, labels, rng.integers(num_classes, size=30))
    scores = np.round(rng.random((30, num_classes)) + np.eye(num_classes)[labels] * 0.4, decimals)
    # Few cases a draw, so that draws without a class are among them.
    rows = np.vstack([draw_cases(30, 20), rng.integers(30, size=(20, 1)).repeat(30, axis=1)])
    drawn = class_draws.times_drawn(rows, 30)
    confusion = class_draws.confusion_of_draws(labels, predicted, num_classes, drawn)
    np.testing.assert_array_equal(
        confusion[0], classification.confusion(labels[rows[0]], predicted[rows[0]], num_classes)
    )
    pairs = [
        (class_draws.balanced_accuracy_of_draws(confusion), classification.balanced_accuracy, predicted),
        (class_draws.macro_f1_of_draws(confusion), classification.macro_f1, predicted),
        (class_draws.auroc_of_draws(labels, scores, drawn), classification.auroc, scores),
        (class_draws.auprc_of_draws(labels, scores, drawn), classification.auprc, scores),
    ]
    for found, metric, said in pairs:
        expected = [metric(labels[row], said[row]).value for row in rows]
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=metric.__name__)
    assert np.isnan(pairs[0][0][20:]).all()


def rows_of_survival(num: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    time = rng.exponential(50, num) + 0.1
    table = pd.DataFrame(
        {"case_id": [f"{i:03}" for i in range(num)], "target": "survival", "time": time, "reason": ""}
    )
    table["event"] = rng.integers(0, 2, num)
    table["predicted"] = np.round(-time / 50 + rng.normal(size=num), 1)
    survival_at = np.sort(rng.random((num, len(MONTHS))), axis=1)[:, ::-1]
    return table.assign(**dict(zip(survival_columns(), survival_at.T, strict=True)))


def test_draws_of_survival():
    rows, train = rows_of_survival(), rows_of_survival(200)
    by_name = {one.metric: one for one in measure("survival", rows, train, Bootstrap(10), "name")}
    assert all(one.estimate.is_estimable for one in by_name.values())
    arrays = [rows[name].to_numpy() for name in ("predicted", "time", "event")]
    follow_up = train["time"].to_numpy(), train["event"].to_numpy()
    probability = rows[list(survival_columns())].to_numpy()
    import zlib

    draws = draw_cases(len(rows), 10, strata=arrays[2], seed=zlib.crc32(b"name"))
    for i, row in enumerate(draws):
        risk, time, event = (array[row] for array in arrays)
        areas = survival.time_dependent_auc(risk, time, event, *follow_up, np.array(MONTHS))
        expected = {
            "harrell_c": survival.harrell_c(risk, time, event),
            "uno_c": survival.uno_c(risk, time, event, *follow_up, tau=60.0),
            "integrated_brier": integrated_brier(probability[row], np.array(MONTHS), time, event, *follow_up),
            **{f"td_auc_{month:g}m": area for month, area in zip(MONTHS, areas, strict=True)},
        }
        for name, estimate in expected.items():
            assert by_name[name].draws[i] == pytest.approx(estimate.value, abs=1e-9), name
