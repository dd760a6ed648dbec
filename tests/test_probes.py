"""Probes against lifelines, scikit-learn and scikit-survival; what a table holds and never touches."""

import math

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sksurv.linear_model import CoxPHSurvivalAnalysis

from modaltune_jax import probes, ridge_cox
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.probes import (
    format_table,
    probe_predictions,
    probe_table,
    subtype_probe,
    survival_probe,
)
from modaltune_jax.ridge_cox import FitError, fit_ridge_cox
from modaltune_jax.scores import COLUMNS, OVERALL, POOLED
from modaltune_jax.types import InputError

SITES = ("brca", "rcc")


def draw_survival(seed, num, width, *, ties=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, width)) * rng.uniform(0.1, 5.0, width) + 3.0
    time = rng.exponential(np.exp(-x[:, 0] / 3.0)) * 20.0
    event = rng.random(num) < 0.5
    return x, np.floor(time) if ties else time, event


def draw_table(seed=0, num=240, width=6):
    """Embeddings that know subtype on task 1, survival on task 2, site on task 0; other tasks are noise."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "split": rng.choice(["train", "val", "test"], num, p=[0.6, 0.2, 0.2]),
            "site": rng.choice(SITES, num),
            "subtype": rng.integers(-1, 3, num),
        }
    )
    embeddings = rng.normal(size=(num, 3, width))
    embeddings[:, 0, 0] += 4.0 * (table["site"] == "rcc")
    code = 3 * (table["site"] == "rcc") + table["subtype"]
    embeddings[:, 1] += 4.0 * np.eye(width)[code] * (table["subtype"] >= 0).to_numpy()[:, None]
    table["time"] = rng.exponential(np.exp(-2.0 * embeddings[:, 2, 0])) * 30.0
    table["event"] = rng.integers(-1, 2, num)
    table.loc[::17, "time"] = math.nan
    return embeddings.astype(np.float32), table


def value(result, split, site, target):
    (row,) = result[(result.split == split) & (result.site == site) & (result.target == target)].itertuples()
    return row


@pytest.mark.parametrize(
    ("num", "width", "ties"),
    [
        pytest.param(120, 12, False, id="no ties"),
        pytest.param(150, 8, True, id="tied deaths and time zero"),
        pytest.param(50, 70, True, id="more columns than cases"),
    ],
)
def test_cox_equals_lifelines_and_sksurv(num, width, ties):
    x, time, event = draw_survival(num, num, width, ties=ties)
    if ties:
        assert (time == 0).any()
        assert len(np.unique(time[event])) < event.sum()
    probe = survival_probe(x, time, event)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(width)])
    theirs = CoxPHFitter(penalizer=0.1).fit(frame.assign(time=time, event=event), "time", "event")
    scale = np.abs(theirs.params_.to_numpy()).max()
    np.testing.assert_allclose(probe.coefficients / probe.std, theirs.params_, rtol=1e-3, atol=1e-4 * scale)
    risk = theirs.predict_log_partial_hazard(frame).to_numpy()
    np.testing.assert_allclose(probe.risk(x), risk, rtol=1e-3, atol=1e-3 * np.abs(risk).max())
    np.testing.assert_array_equal(np.argsort(probe.risk(x)), np.argsort(risk))

    outcome = np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", float)])
    same = CoxPHSurvivalAnalysis(alpha=0.1 * num, ties="efron").fit((x - probe.mean) / probe.std, outcome)
    np.testing.assert_allclose(probe.coefficients, same.coef_, rtol=1e-5, atol=1e-8)


def test_cox_derivatives_agree_with_differences_of_the_likelihood():
    x, time, event = draw_survival(3, 30, 4, ties=True)
    likelihood = ridge_cox._PartialLikelihood(x - x.mean(0), time, event)
    beta, step = np.array([0.3, -0.2, 0.1, 0.05]), 1e-5 * np.eye(4)
    gradient, hessian = likelihood.derivatives(beta)
    slopes = [(likelihood(beta + h) - likelihood(beta - h)) / 2e-5 for h in step]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6)
    curves = [
        (likelihood.derivatives(beta + h)[0] - likelihood.derivatives(beta - h)[0]) / 2e-5 for h in step
    ]
    np.testing.assert_allclose(hessian, curves, rtol=1e-6, atol=1e-6)


def test_cox_at_full_size_is_at_its_optimum():
    x, time, event = draw_survival(1, 1800, 256)
    probe = survival_probe(x.astype(np.float32), time, event)
    z = (x.astype(np.float32).astype(np.float64) - probe.mean) / probe.std
    likelihood = ridge_cox._PartialLikelihood(z, time, event)
    gradient = likelihood.derivatives(probe.coefficients)[0] + 0.1 * 1800 * probe.coefficients
    assert np.abs(gradient).max() < 1e-3 * 1800 * 0.1 * np.abs(probe.coefficients).max()


def test_unknown_survival_is_left_out_and_constant_columns_get_no_weight():
    x, time, event = draw_survival(2, 60, 3)
    time, event = time.copy(), event.astype(int)
    expected = survival_probe(x[10:], time[10:], event[10:])
    time[:5], event[5:10] = math.nan, -1
    probe = survival_probe(x, time, event)
    np.testing.assert_array_equal(probe.coefficients, expected.coefficients)
    constant = survival_probe(np.column_stack([x, np.full(60, 0.1)]), time, event)
    np.testing.assert_allclose(constant.coefficients, [*expected.coefficients, 0.0], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"event": np.zeros(40, int)}, "no death", id="all censored"),
        pytest.param({"event": np.full(40, -1)}, "0 training", id="nothing known"),
        pytest.param({"time": np.r_[1.0, np.full(39, math.nan)]}, "1 training", id="one case"),
        pytest.param({"embeddings": np.full((40, 2), math.nan)}, "not finite", id="NaN embeddings"),
    ],
)
def test_cox_says_why_it_cannot_be_fitted(change, reason):
    x, time, event = draw_survival(0, 40, 2)
    with pytest.raises(FitError, match=reason):
        survival_probe(**{"embeddings": x, "time": time, "event": event.astype(int)} | change)


def test_cox_refuses_no_penalty_and_reports_no_convergence(monkeypatch):
    x, time, event = draw_survival(0, 40, 2)
    with pytest.raises(ValueError, match="not positive"):
        fit_ridge_cox(x, time, event, 0.0)
    monkeypatch.setattr(ridge_cox, "MAX_ITERATIONS", 1)
    with pytest.raises(FitError, match="did not converge in 1"):
        survival_probe(x, time, event)


def test_a_separating_column_still_converges():
    time = np.arange(1.0, 61.0)
    probe = survival_probe(1e3 * np.exp(-time[:, None] / 4), time, np.ones(60))
    assert harrell_c(probe.risk(1e3 * np.exp(-time[:, None] / 4)), time, np.ones(60)).value == 1.0


@pytest.mark.parametrize("num_classes", [2, 4])
def test_subtype_probe_is_liblinear_one_against_the_rest(num_classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, num_classes, 300)
    x = rng.normal(size=(300, 10)) + labels[:, None] * rng.normal(size=10)
    known = labels >= 0
    x = (x - x[known].mean(0)) / x[known].std(0)
    probe = subtype_probe(x, labels)
    scores = [
        LogisticRegression(solver="liblinear").fit(x[known], labels[known] == label).decision_function(x)
        for label in range(num_classes)
    ]
    np.testing.assert_array_equal(probe.predict(x), np.argmax(scores, axis=0))
    moved = 1e-3 * x + 7.0  # scale and place of the embeddings must not matter
    assert np.mean(subtype_probe(moved, labels).predict(moved) == probe.predict(x)) > 0.99


@pytest.mark.parametrize(
    ("x", "labels", "reason"),
    [
        pytest.param(np.ones((2, 2)), [-1, -1], "no training case", id="no label"),
        pytest.param(np.ones((3, 2)), [1, 1, -1], "one class only", id="one class"),
        pytest.param(np.full((2, 2), np.inf), [0, 1], "not finite", id="infinite embeddings"),
    ],
)
def test_subtype_probe_says_why_it_cannot_be_fitted(x, labels, reason):
    with pytest.raises(FitError, match=reason):
        subtype_probe(x, np.array(labels))


def test_subtype_probe_reports_no_convergence(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(probes, "MAX_ITERATIONS", 1)
    with pytest.raises(FitError, match="logistic regression did not converge"):
        subtype_probe(rng.normal(size=(50, 4)), rng.integers(0, 2, 50))


def test_table_rows_and_values():
    embeddings, table = draw_table()
    result = probe_table(embeddings, table, SITES)
    expected = {
        (split, site, target)
        for split in ("val", "test")
        for target in ("subtype", "survival")
        for site in (*SITES, POOLED, OVERALL)
    } | {(split, OVERALL, "site") for split in ("val", "test")}
    assert set(zip(result.split, result.site, result.target, strict=True)) == expected
    assert len(result) == len(expected)
    assert list(result.columns) == list(COLUMNS)
    assert set(result["method"]) == {"probe"}
    assert (result.value > 0.7).all()
    assert (result.reason == "").all()
    tasks = dict(zip(result.target, result.task, strict=True))
    assert tasks == {"subtype": "diagnosis", "survival": "survival", "site": "general"}

    for target in ("subtype", "survival"):
        parts = [value(result, "test", site, target) for site in SITES]
        overall = value(result, "test", OVERALL, target)
        assert overall.value == pytest.approx(np.mean([part.value for part in parts]))
        assert overall.num == sum(part.num for part in parts) == value(result, "test", POOLED, target).num

    known = table.time.notna() & (table.event >= 0)
    train, test = ((known & (table.split == split)).to_numpy() for split in ("train", "test"))
    time, event = table.time.to_numpy(), table.event.to_numpy()
    probe = survival_probe(embeddings[train, 2], time[train], event[train])
    c = harrell_c(probe.risk(embeddings[test, 2]), time[test], event[test])
    row = value(result, "test", POOLED, "survival")
    assert (row.value, row.num, row.num_events) == (c.value, c.num, c.num_events)


def test_each_target_uses_its_own_embedding():
    embeddings, table = draw_table()
    before = probe_table(embeddings, table, SITES)
    for task, target in enumerate(("site", "subtype", "survival")):
        shuffled = embeddings.copy()
        shuffled[:, task] = np.random.default_rng(0).permutation(shuffled[:, task])
        after = probe_table(shuffled, table, SITES)
        changed = set(before.target[before.value != after.value])
        assert changed == {target}


def test_some_targets_alone(monkeypatch):
    embeddings, table = draw_table()
    everything = probe_table(embeddings, table, SITES)
    monkeypatch.setattr(probes, "survival_probe", None)  # to be fitted would raise
    some = probe_table(embeddings, table, SITES, targets=("subtype", "site"))
    expected = everything[everything["target"] != "survival"].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected)


def test_predictions_are_those_of_the_probe_of_each_site():
    embeddings, table = draw_table()
    embeddings[7] = math.nan
    table.loc[7, "split"] = "test"
    subtype, survival = probe_predictions(embeddings, table, SITES, ("subtype", "survival"))
    known = table.time.notna() & (table.event >= 0) & (table.split == "train")
    for predicted, member in zip(survival.predictions.values(), (*SITES, POOLED), strict=True):
        train = (known & (table.site.isin(SITES if member == POOLED else [member]))).to_numpy()
        probe = survival_probe(
            embeddings[train, 2], table.time[train].to_numpy(), table.event[train].to_numpy()
        )
        np.testing.assert_array_equal(predicted, probe.risk(embeddings[:, 2]))
        assert np.isnan(predicted).nonzero()[0].tolist() == [7]
    brca = ((table.site == "brca") & (table.subtype >= 0)).to_numpy()
    np.testing.assert_array_equal(subtype.cases["brca"], brca.nonzero()[0])
    assert np.mean(subtype.predictions["brca"][brca] == table.subtype[brca]) > 0.9


def test_one_task_serves_all_targets():
    embeddings, table = draw_table()
    one = probe_table(embeddings[:, :1], table, SITES)
    three = probe_table(np.repeat(embeddings[:, :1], 3, axis=1), table, SITES)
    np.testing.assert_array_equal(one.value, three.value)
    assert set(one.task) == {"general"}


def test_validation_and_test_cases_do_not_touch_the_fits(monkeypatch):
    embeddings, table = draw_table()
    fitted = []
    for name in ("subtype_probe", "survival_probe"):
        fit = getattr(probes, name)
        monkeypatch.setattr(probes, name, lambda *args, fit=fit: fitted.append(fit(*args)) or fitted[-1])

    def coefficients(embeddings, table):
        fitted.clear()
        probe_table(embeddings, table, SITES)
        return [
            np.concatenate([probe[0].mean_, *(e.coef_.ravel() for e in probe[-1].estimators_)])
            if isinstance(probe, Pipeline)
            else probe.coefficients
            for probe in fitted
        ]

    before = coefficients(embeddings, table)
    assert len(before) == 7
    held_out = (table.split != "train").to_numpy()
    changed, relabelled = embeddings.copy(), table.copy()
    changed[held_out] = 100.0 * np.random.default_rng(1).normal(size=changed[held_out].shape)
    relabelled.loc[held_out, ["subtype", "event"]] = [1, 0]
    relabelled.loc[held_out, "time"] = 1e4
    for one, other in zip(before, coefficients(changed, relabelled), strict=True):
        np.testing.assert_array_equal(one, other)

    changed = embeddings.copy()
    changed[~held_out] *= np.random.default_rng(2).uniform(0.5, 2.0, changed[~held_out].shape)
    for one, other in zip(before, coefficients(changed, table), strict=True):
        assert np.abs(one - other).max() > 0


def test_what_cannot_be_estimated_has_a_reason():
    embeddings, table = draw_table()
    rcc = table.site == "rcc"
    table.loc[rcc & (table.split == "train"), "event"] = 0
    table.loc[rcc & (table.split == "test") & (table.subtype >= 0), "subtype"] = 1
    embeddings[(table.split == "val").to_numpy(), 0] = math.nan
    result = probe_table(embeddings, table, SITES)
    assert value(result, "test", "rcc", "survival").reason == "no death seen in training"
    assert value(result, "test", "rcc", "subtype").reason == "one class only"
    assert value(result, "val", OVERALL, "site").reason == "predictions are not finite"
    for target in ("subtype", "survival"):
        overall = value(result, "test", OVERALL, target)
        assert overall.value == value(result, "test", "brca", target).value
        assert overall.reason == "without rcc"
    assert (result.value.isna() <= (result.reason != "")).all()


def test_diverged_embeddings_and_absent_sites_give_reasons_only():
    embeddings, table = draw_table()
    result = probe_table(np.full_like(embeddings, math.nan), table, SITES)
    assert result.value.isna().all()
    assert (result.reason != "").all()
    absent = probe_table(embeddings, table, ("blca",))
    assert absent.value.isna().all()
    assert (absent.num == 0).all()
    assert (absent.reason != "").all()


def test_cases_of_other_sites_are_ignored():
    embeddings, table = draw_table()
    brca = (table.site == "brca").to_numpy()
    alone = probe_table(embeddings[brca], table[brca], ("brca",))
    pd.testing.assert_frame_equal(alone, probe_table(embeddings, table, ("brca",)))


def test_wrong_tables_are_refused():
    embeddings, table = draw_table()
    with pytest.raises(InputError, match=r"lacks column\(s\) event, time"):
        probe_table(embeddings, table.drop(columns=["time", "event"]), SITES)
    with pytest.raises(InputError, match="239 rows of embeddings for 240 cases"):
        probe_table(embeddings[1:], table, SITES)
    with pytest.raises(InputError, match="have 2 tasks"):
        probe_table(embeddings[:, :2], table, SITES)


def test_format():
    embeddings, table = draw_table()
    table.loc[table.site == "rcc", "event"] = 0
    result = probe_table(embeddings, table, SITES)
    text = format_table(result)
    blocks = text.split("\n\n")
    assert [block.split(":")[0] for block in blocks[:3]] == ["subtype", "survival", "site"]
    row = value(result, "test", "brca", "survival")
    (line,) = [line for line in blocks[1].splitlines() if line.startswith("  brca")]
    assert line.endswith(f"{row.value:.3f} ({row.num}, {row.num_events})")
    assert blocks[1].splitlines()[1].split() == ["val", "test"]
    assert "  rcc      -" in blocks[1]
    assert "survival, rcc, test: no death seen in training" in blocks[3]
    assert not any(line != line.rstrip() for line in text.splitlines())
