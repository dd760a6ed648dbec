"""AJCC codes as sources write them."""

import doctest

import pytest

from modaltune_jax.inputs import ajcc as module
from modaltune_jax.inputs.ajcc import ajcc_category
from modaltune_jax.types import InputError


def test_doctests():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("field", "code", "category"),
    [
        pytest.param("stage", "Stage I", "1", id="stage-1"),
        pytest.param("stage", "stage iia", "2", id="lower-case"),
        pytest.param("stage", "Stage IIIC1", "3", id="two-subdivisions"),
        pytest.param("stage", "IVB", "4", id="word-left-out"),
        pytest.param("stage", "2B", "2", id="arabic"),
        pytest.param("stage", "Stage 0is", "0", id="stage-0is"),
        pytest.param("stage", "Stage IS", "is", id="stage-is"),
        pytest.param("stage", "Stage X", "X", id="stage-x"),
        pytest.param("stage", "", "", id="empty"),
        pytest.param("stage", "not reported", "", id="not-reported"),
        pytest.param("t", "T4d", "4", id="t4d"),
        pytest.param("t", "T0", "0", id="t0"),
        pytest.param("t", "Tis (DCIS)", "is", id="tis"),
        pytest.param("t", "Ta", "is", id="ta"),
        pytest.param("t", "TX", "X", id="tx"),
        pytest.param("t", "ypT2", "2", id="after-therapy"),
        pytest.param("n", "N0 (mol+)", "0", id="molecular"),
        pytest.param("n", "N1mi", "1", id="micro"),
        pytest.param("n", "NX", "X", id="nx"),
        pytest.param("m", "cM0 (i+)", "0", id="clinical-m"),
        pytest.param("m", "M1b", "1", id="m1b"),
        pytest.param("m", "[Unknown]", "", id="brackets"),
    ],
)
def test_ajcc_category(field, code, category):
    assert ajcc_category(field, code) == category


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("stage", "Stage V"),
        ("stage", "early"),
        ("t", "T5"),
        ("t", "T22"),
        ("t", "N1"),
        ("n", "N4"),
        ("m", "M2"),
    ],
)
def test_unreadable_codes(field, code):
    with pytest.raises(InputError, match=f"{field} '{code}' is not an AJCC code"):
        ajcc_category(field, code)
