"""A short training in bfloat16 follows that in float32; at demo size: benchmarks/precision.py."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import tiny


@pytest.fixture(scope="module")
def precision():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module("precision")


def test_twenty_steps_stay_within_the_budget(tmp_path, precision, monkeypatch):
    no_scores = pd.DataFrame(columns=["site", "split", "target", "value"])
    monkeypatch.setattr(precision, "probe", lambda *args: no_scores)  # two compilations less
    experiment = tiny.experiment(tmp_path, loss=tiny.common.loss(distillation=1.0), rules=((".*", "train"),))
    row = precision.compare(experiment[0], 0, *experiment[1:], num_steps=20)
    assert 0 < row["mean difference"] <= precision.MEAN_BUDGET
    assert row["largest difference"] <= precision.MAX_BUDGET
    assert 0 < row["weights"] < 0.5
    assert precision.beyond([row]) == []


def example(mean: float, largest: float, ours: float, theirs: float):
    return {
        "seed": 4,
        "mean difference": mean,
        "largest difference": largest,
        "scores": {"subtype": [ours, theirs]},
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param([example(0.0, 0.0, 0.7, 0.2)], "", id="fewer than three seeds have no noise"),
        pytest.param(
            [example(0.5, 0.0, 0.7, 0.7)], "seed 4: mean difference of the loss is 50.00%", id="mean"
        ),
        pytest.param([example(0.0, 0.9, 0.7, 0.7)], "largest difference of the loss is 90.00%", id="largest"),
        pytest.param([example(np.nan, 0.0, 0.7, 0.7)], "is nan%", id="not a number"),
        pytest.param(
            [example(0.0, 0.0, x, x - 0.3) for x in (0.7, 0.71, 0.72)],
            "subtype: 0.710 and 0.410",
            id="scores",
        ),
        pytest.param([example(0.0, 0.0, x, x - 0.01) for x in (0.7, 0.71, 0.72)], "", id="scores like seeds"),
    ],
)
def test_what_is_beyond_the_budget(precision, rows, said):
    lines = precision.beyond(rows)
    assert said in "\n".join(lines)
    assert bool(said) == bool(lines)
