"""AJCC codes, standardisation, survival bins; nothing is fitted on validation or test cases."""

import dataclasses
import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modaltune_jax.inputs import transforms as module
from modaltune_jax.inputs.clinical import ClinicalColumn, ClinicalEncoder
from modaltune_jax.inputs.transforms import (
    Transforms,
    fit_transforms,
    time_bin,
)
from modaltune_jax.types import Case, InputError, Labels

NAN = math.nan


def make_case(id="A", split="train", expression=None, site="brca", **labels):
    if expression is not None:
        expression = np.asarray(expression, np.float32)
    return Case(id, site, split, (), expression, Labels(**labels))


def make_transforms(**changes):
    fitted = Transforms(
        expression_mean=np.asarray([1.0, 2.0, 0.0]),
        expression_std=np.asarray([2.0, 0.0, 1.0]),
        clinical=ClinicalEncoder((ClinicalColumn("age", "number", 60.0, 10.0),)),
        num_bins=4,
        survival_edges={"brca": (1.0, 10.0, 20.0, 40.0, 80.0)},
    )
    return dataclasses.replace(fitted, **changes)


def test_doctests():
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_expression_standardised():
    out = make_transforms().expression(np.asarray([5.0, 7.0, NAN], np.float32))
    assert out.dtype == np.float32
    assert out.tolist() == [2.0, 0.0, 0.0], "std 0 and NaN give 0"


def test_expression_of_another_gene_list():
    with pytest.raises(InputError, match="the case has 2 genes but the transforms were fitted on 3"):
        make_transforms().expression(np.zeros(2, np.float32))


def test_fitted_moments_ignore_nan_and_constant_genes():
    constant = 0.1
    rows = [[1.0, constant, NAN, NAN], [3.0, constant, 5.0, NAN], [8.0, constant, 9.0, NAN]]
    cases = [
        make_case(str(i), expression=row, age=age)
        for i, (row, age) in enumerate(zip(rows, (50.0, NAN, 70.0), strict=True))
    ]
    fitted = fit_transforms([*cases, make_case("no-rna", age=60.0)])
    np.testing.assert_allclose(fitted.expression_mean, [4.0, constant, 7.0, 0.0], rtol=1e-7)
    np.testing.assert_allclose(fitted.expression_std, [np.std([1, 3, 8]), 0.0, 2.0, 0.0], rtol=1e-12)
    age = fitted.clinical.columns[-1]
    assert (age.name, age.mean) == ("age", 60.0)
    assert age.std == pytest.approx(np.std([50, 70, 60]))
    assert fitted.expression(np.asarray([4, 3, 7, 2], np.float32)).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert fitted.survival_edges == {}, "no survival known, no bins"


def test_equal_ages_have_no_spread():
    num_cases, age = 3, 61.3
    assert sum([age] * num_cases) / num_cases != age, "the mean of equal ages is rounded"
    fitted = fit_transforms([make_case(str(i), age=age) for i in range(num_cases)])
    assert fitted.clinical.columns[-1].std == 0.0


def survival_cases():
    """Deaths at 2, 4, ..., 20 months and censored cases far later, in train; others in val and test."""
    rng = np.random.default_rng(0)
    train = [
        make_case(f"d{i}", expression=rng.normal(size=5), time=2.0 * i, event=1, age=50.0 + i)
        for i in range(1, 11)
    ]
    train += [make_case(f"c{i}", expression=rng.normal(size=5), time=100.0 + i, event=0) for i in range(5)]
    others = [
        make_case(f"{split}{i}", split, rng.normal(size=5), time=50.0 + i, event=i % 2, age=30.0)
        for split in ("val", "test")
        for i in range(4)
    ]
    return train, others


def test_nothing_is_fitted_on_validation_or_test():
    train, others = survival_cases()
    changed = [
        dataclasses.replace(
            case,
            expression=case.expression * 9 + 1,
            labels=Labels(time=case.labels.time / 9, event=1, age=99.0),
        )
        for case in others
    ]
    expected = fit_transforms(train + others).to_json()
    assert fit_transforms(train + changed).to_json() == expected
    assert fit_transforms(train).to_json() == expected
    assert fit_transforms(train + changed, bins="reference").to_json() != expected, "the check can fail"


def test_train_bins_are_quantiles_of_uncensored_train_times():
    train, others = survival_cases()
    edges = fit_transforms(train + others).survival_edges["brca"]
    np.testing.assert_allclose(edges, [2, 6.5, 11, 15.5, 20], atol=2e-6)
    assert edges[0] < 2.0 < 20.0 < edges[-1]


def test_reference_bins_take_all_splits_and_censored_cases():
    train, others = survival_cases()
    fitted = fit_transforms(train + others, bins="reference")
    times = [case.labels.time for case in train + others]
    np.testing.assert_allclose(
        fitted.survival_edges["brca"], np.quantile(times, [0, 0.25, 0.5, 0.75, 1]), atol=2e-6
    )
    np.testing.assert_array_equal(fitted.expression_mean, fit_transforms(train).expression_mean)


def test_bins_are_fitted_per_site():
    train, _ = survival_cases()
    slower = [
        dataclasses.replace(
            case, id=f"{case.id}s", site="rcc", labels=dataclasses.replace(case.labels, time=3 * t)
        )
        for case in train
        if (t := case.labels.time)
    ]
    edges = fit_transforms(train + slower, num_bins=2).survival_edges
    assert edges["brca"][1] == 11.0
    assert edges["rcc"][1] == 33.0


@pytest.mark.parametrize(
    ("time", "index"),
    [
        pytest.param(0.0, 0, id="before-first-edge"),
        pytest.param(1.0, 0, id="first-edge"),
        pytest.param(10.0, 1, id="edge-belongs-to-the-right"),
        pytest.param(39.9, 2, id="inside"),
        pytest.param(79.9, 3, id="last-bin"),
        pytest.param(80.0, 3, id="last-edge"),
        pytest.param(500.0, 3, id="beyond-last-edge"),
        pytest.param(NAN, -1, id="unknown"),
    ],
)
def test_survival_bin(time, index):
    assert make_transforms().survival_bin("brca", time) == index


@given(
    st.lists(st.floats(0, 500), min_size=2, max_size=9, unique=True).map(sorted),
    st.lists(st.floats(0, 600), min_size=2, max_size=9).map(sorted),
)
def test_later_times_never_fall_in_earlier_bins(edges, times):
    bins = [time_bin(time, edges) for time in times]
    assert bins == sorted(bins)
    assert 0 <= bins[0] <= bins[-1] <= len(edges) - 1


def test_survival_bin_of_an_unknown_site():
    with pytest.raises(InputError, match=r"site 'rcc' has no survival bins, only \['brca'\] have"):
        make_transforms().survival_bin("rcc", 3.0)


@pytest.mark.parametrize(
    ("cases", "options", "message"),
    [
        pytest.param([make_case(split="test")], {}, "none of the cases is in the train split", id="no-train"),
        pytest.param([], {}, "none of the cases", id="no-cases"),
        pytest.param(
            [make_case(time=4.0, event=0)], {}, r"'brca': its uncensored train times \(0\)", id="no-death"
        ),
        pytest.param(
            [make_case(time=4.0, event=1)], {}, r"times \(1\) do not give 4 distinct", id="one-death"
        ),
        pytest.param(
            [make_case(str(i), time=4.0, event=0) for i in range(9)],
            {"bins": "reference"},
            r"all its times \(9\)",
            id="all-times-equal",
        ),
    ],
)
def test_cases_that_cannot_be_fitted(cases, options, message):
    with pytest.raises(InputError, match=message):
        fit_transforms(cases, **options)


def test_json_restores_every_bit():
    train, others = survival_cases()
    fitted = fit_transforms(train + others)
    restored = Transforms.from_json(fitted.to_json())
    np.testing.assert_array_equal(restored.expression_mean, fitted.expression_mean, strict=True)
    np.testing.assert_array_equal(restored.expression_std, fitted.expression_std, strict=True)
    assert restored.clinical == fitted.clinical
    assert (restored.num_bins, restored.survival_edges) == (fitted.num_bins, fitted.survival_edges)
