"""Clinical values: one vocabulary over all cohorts, fitted on train, missing values marked."""

import dataclasses
import json
import math

import numpy as np
import pytest

from modaltune_jax.inputs.clinical import ClinicalColumn, ClinicalEncoder, fit_clinical
from modaltune_jax.types import Case, InputError, Labels

NAN = math.nan
ORDINALS = tuple(ClinicalColumn(name, "ordinal") for name in ("stage", "t", "n", "m"))
ENCODER = ClinicalEncoder((*ORDINALS, ClinicalColumn("age", "number", 60.0, 10.0)))
KINDS = {"sex": "category", "ki67": "number"}


def make_case(variables=None, **labels):
    return Case("A", "brca", "train", (), None, Labels(**labels), variables or {})


def test_values_and_flags():
    encoded = ENCODER(make_case(stage="Stage IIB", t="T1c", n="N3", m="M1", age=75.0))
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [0.5, 0.25, 1.0, 1.0, 1.5, 0, 0, 0, 0, 0]
    assert len(ENCODER) == len(ENCODER.names) == 10
    assert ENCODER.names[4:6] == ("age", "stage_missing")


@pytest.mark.parametrize(
    ("labels", "flags"),
    [
        pytest.param({}, [1, 1, 1, 1, 1], id="nothing-known"),
        pytest.param(
            {"stage": "Stage X", "t": "TX", "n": "NX", "m": "MX"}, [1, 1, 1, 1, 1], id="x-is-missing"
        ),
        pytest.param(
            {"stage": "Stage 0", "t": "T0", "n": "N0", "m": "M0", "age": 60.0}, [0] * 5, id="zeros-known"
        ),
        pytest.param({"t": "T0", "age": 60.0}, [1, 0, 1, 1, 0], id="mixed"),
    ],
)
def test_missing_is_zero_with_its_flag(labels, flags):
    encoded = ENCODER(make_case(**labels))
    assert encoded.tolist() == [0.0] * 5 + [float(flag) for flag in flags]
    assert ENCODER.is_known(encoded) == (not all(flags))


def test_a_number_without_spread_is_zero_but_known():
    encoder = fit_clinical([make_case(age=71.0), make_case(age=71.0)], ("age",))
    assert encoder(make_case(age=80.0)).tolist() == [0.0, 0.0]
    assert encoder(make_case()).tolist() == [0.0, 1.0]


def test_variables_of_the_data_set():
    train = [
        make_case({"sex": "male", "ki67": 10.0}),
        make_case({"sex": "female", "ki67": 30.0}),
        make_case({"sex": "female"}),
    ]
    encoder = fit_clinical(train, ("sex", "ki67", "age"), KINDS)
    assert encoder.names == (
        "sex=female",
        "sex=male",
        "ki67",
        "age",
        *(f"{n}_missing" for n in ("sex", "ki67", "age")),
    )
    assert encoder(train[0]).tolist() == [0, 1, -1, 0, 0, 0, 1]
    assert encoder(train[2]).tolist() == [1, 0, 0, 0, 0, 1, 1]
    unseen = encoder(make_case({"sex": "diverse", "ki67": 20.0}))
    assert unseen.tolist() == [0, 0, 0, 0, 1, 0, 1], "a word that no train case has counts as missing"


def test_a_variable_that_no_train_case_has():
    encoder = fit_clinical([make_case()], ("sex", "ki67"), KINDS)
    assert encoder.names == ("ki67", "sex_missing", "ki67_missing")
    assert encoder(make_case({"sex": "male", "ki67": 3.0})).tolist() == [0, 1, 0]


def test_no_columns():
    encoder = fit_clinical([make_case()], ())
    encoded = encoder(make_case(age=3.0))
    assert encoded.shape == (0,)
    assert not encoder.is_known(encoded)


@pytest.mark.parametrize("columns", [("stage", "grade"), ("age", "age")], ids=["unknown", "twice"])
def test_wrong_columns(columns):
    with pytest.raises(InputError, match="each must be there once, and be one of stage, t, n, m, age, sex"):
        fit_clinical([make_case()], columns, {"sex": "category"})


def test_json_restores_all():
    encoder = fit_clinical([make_case({"sex": "male"}, age=1 / 3), make_case(age=0.7)], ("sex", "age"), KINDS)
    assert ClinicalEncoder.from_dict(json.loads(json.dumps(dataclasses.asdict(encoder)))) == encoder
