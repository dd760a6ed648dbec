"""Plots show what they should, and no text lies on another or off the page."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.metrics.curves import risk_cutoffs, risk_groups, roc
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.intervals import Interval
from modaltune_jax.metrics.survival_probability import Calibration, calibration
from modaltune_jax.plots import calibration as calibration_plot
from modaltune_jax.plots import forest, kaplan_meier, style
from modaltune_jax.plots import roc as roc_plot
from modaltune_jax.types import InputError


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figures that were written, still open."""
    from matplotlib import pyplot as plt

    figures = []
    with monkeypatch.context() as patch:
        patch.setattr(plt, "close", figures.append)
        yield figures
    for figure in figures:
        plt.close(figure)


def texts(figure) -> list:
    from matplotlib.text import Text

    figure.canvas.draw()
    found = figure.findobj(lambda one: isinstance(one, Text) and one.get_visible() and one.get_text().strip())
    return [one for one in found if one.get_window_extent().width > 0]


def words(figure) -> list[str]:
    return [one.get_text() for one in texts(figure)]


def check_texts(figure, is_trimmed=False):
    boxes = [(one.get_text(), one.get_window_extent()) for one in texts(figure)]
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        # A pixel of touch is the rounding of extents.
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(width, height) <= 1, (one, other)
    if not is_trimmed:
        page = figure.bbox
        outside = [name for name, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > page.x1]
        assert outside == []


def patients(num=120):
    rng = np.random.default_rng(0)
    risk = rng.normal(size=num)
    death, end = rng.exponential(60 * np.exp(-risk)), rng.uniform(5, 180, num)
    return risk, np.minimum(death, end), death <= end


@pytest.mark.parametrize("quantiles", [(0.5,), (0.2, 0.4, 0.6, 0.8)], ids=["two groups", "five groups"])
def test_kaplan_meier_shows_curves_and_numbers_at_risk(tmp_path, drawn, quantiles):
    risk, time, event = patients()
    group = risk_groups(risk, risk_cutoffs(risk, quantiles))
    labels = [f"group {i}" for i in range(len(quantiles) + 1)]
    kaplan_meier.draw_kaplan_meier(time, event, group, labels, tmp_path / "km.png", title="BRCA, test")
    (figure,) = drawn
    check_texts(figure)
    axis, table = figure.axes
    ticks = axis.get_xticks()
    shown = [
        [one.get_text() for one in table.texts[i * len(ticks) :][: len(ticks)]] for i in range(len(labels))
    ]
    assert shown == [[str(np.sum(time[group == i] >= tick)) for tick in ticks] for i in range(len(labels))]
    assert "log-rank p < 0.001" in words(figure)
    died = f"group 1: {np.sum(event[group == 1])} of {np.sum(group == 1)} died"
    assert died in words(figure)
    lines = [line for line in axis.lines if line.get_linestyle() not in ("", "None")]
    assert len({line.get_color() for line in lines}) == len(labels)
    # The patterns of dashes, for print.
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(labels)
    assert [path.name for path in tmp_path.iterdir()] == ["km.png"]


@pytest.mark.parametrize(
    ("time", "event", "group", "reason"),
    [
        pytest.param([], [], [], "log-rank: no case", id="no case"),
        pytest.param([5.0, 9.0], [0, 0], [0, 0], "log-rank: no death seen", id="a group without cases"),
        pytest.param([0.4, 0.2], [1, 1], [0, 1], "log-rank p = 0.317", id="within a month"),
        pytest.param([900.0, 9.0], [1, 1], [0, 1], "log-rank p = 0.317", id="75 years"),
    ],
)
def test_kaplan_meier_edges(tmp_path, drawn, time, event, group, reason):
    kaplan_meier.draw_kaplan_meier(
        np.array(time, float),
        np.array(event, int),
        np.array(group, int),
        ["low", "high"],
        tmp_path / "km.png",
    )
    check_texts(drawn[0])
    assert reason in words(drawn[0])


def test_roc_shows_areas_and_why_there_is_none(tmp_path, drawn):
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
    curves = {"model": roc(labels, scores), "other": roc(labels[:2], scores[:2])}
    roc_plot.draw_roc(curves, tmp_path / "roc.png", intervals={"model": Interval(0.4, 1.0)}, title="LUAD")
    check_texts(drawn[0], is_trimmed=True)
    assert {"model\n0.75 (0.40 to 1.00)", "other\none class only", "LUAD"} <= set(words(drawn[0]))
    np.testing.assert_array_equal(drawn[0].axes[0].lines[1].get_xdata(), curves["model"].false_positive)


def test_calibration_shows_groups_and_why_there_is_no_error(tmp_path, drawn):
    risk, time, event = patients()
    predicted = np.exp(-36 / (60 * np.exp(-risk)))
    right = calibration(predicted, time, event, 36.0, 4)
    late = calibration(predicted[:20], time[:20] / 9, np.zeros(20), 36.0, 3)
    results = {"model": right, "late": late}
    calibration_plot.draw_calibration(results, tmp_path / "calibration.png", title="BRCA")
    check_texts(drawn[0], is_trimmed=True)
    assert f"model\nmean error {right.error.value:.2f}" in words(drawn[0])
    assert "late\n3 of 3 groups are not followed until\nmonth 36" in words(drawn[0])
    assert "predicted survival at 36 months" in words(drawn[0])
    np.testing.assert_array_equal(drawn[0].axes[0].lines[1].get_ydata(), right.observed)


@pytest.mark.parametrize("draw", [roc_plot.draw_roc, calibration_plot.draw_calibration])
def test_a_panel_without_models(tmp_path, draw):
    draw({}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_calibration_of_no_case(tmp_path):
    none = np.zeros(0)
    result = Calibration(12.0, none, none, none, none, np.zeros(0, int), Estimate.missing("no case"))
    calibration_plot.draw_calibration({"model": result}, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 0


def forest_table(num_models=12, **changes) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"cohort": cohort, "model": f"model number {i}", "num": 120, "num_events": 33, "reason": ""}
        | {"value": (value := rng.uniform(0.55, 0.8)), "low": value - 0.05, "high": value + 0.05}
        for cohort in ("BRCA", "BLCA (out of distribution)")
        for i in range(num_models)
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_forest_shows_every_row_in_order(tmp_path, drawn):
    table = forest_table()
    table.loc[3, ["value", "low", "high"]] = math.nan
    table.loc[3, "reason"] = "a death at month 104.3 is beyond the training follow-up of 95.1 months"
    table.loc[4, ["low", "high"]] = math.nan
    forest.draw_forest(table, tmp_path / "forest.pdf", metric="Harrell's c", chance=0.5)
    check_texts(drawn[0])
    shown = words(drawn[0])
    assert f"not estimable: {table.loc[3, 'reason']}" in shown
    assert f"{table.loc[4, 'value']:.3f}" in shown
    row = table.iloc[-1]
    assert f"{row['value']:.3f}  ({row['low']:.3f} to {row['high']:.3f})" in shown
    assert shown.count("120 cases, 33 deaths") == 2
    names = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    models = [f"model number {i}" for i in range(12)]
    assert names == ["BRCA", *models, "", "BLCA (out of distribution)", *models]
    assert (tmp_path / "forest.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(forest_table(1, num_events=0), id="one model, no deaths known"),
        pytest.param(forest_table(2, value=math.nan, low=math.nan, high=math.nan), id="nothing estimable"),
    ],
)
def test_forest_edges(tmp_path, drawn, table):
    forest.draw_forest(table, tmp_path / "forest.png", metric="balanced accuracy")
    check_texts(drawn[0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (forest_table().drop(columns=["low", "reason"]), "lacks column.s. low, reason"),
        (forest_table().iloc[:0], "has no row"),
    ],
)
def test_forest_of_a_wrong_table(tmp_path, table, message):
    with pytest.raises(InputError, match=message):
        forest.draw_forest(table, tmp_path / "forest.png", metric="c")


def test_a_model_looks_the_same_in_all_cohorts_and_unlike_others(tmp_path, drawn):
    forest.draw_forest(forest_table(9), tmp_path / "forest.png", metric="c")
    looks = [
        (line.get_color(), line.get_marker()) for line in drawn[0].axes[0].lines if len(line.get_xdata()) == 1
    ]
    assert looks[:9] == looks[9:]
    assert len(set(looks[:9])) == 9
    assert len({marker for _, marker in looks}) == 9, "markers alone tell them apart"


def test_pairs_of_colour_and_shape_repeat_late():
    assert len({(row["color"], row["marker"]) for row in map(style.marker_style, range(72))}) == 72
    assert len({(row["color"], row["linestyle"]) for row in map(style.line_style, range(56))}) == 56
