"""What picks a checkpoint."""

import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.selection import check_selection, selection_score
from modaltune_jax.types import InputError


def probes(**overall: float) -> pd.DataFrame:
    common = {"split": "val", "site": "overall", "method": "probe"}
    rows = [{**common, "target": name, "value": value} for name, value in overall.items()]
    for other in ({"split": "test"}, {"site": "pooled"}, {"site": "brca"}):
        rows += [{**row, **other, "value": 0.99} for row in rows[: len(overall)]]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("targets", "score"),
    [
        pytest.param(("subtype",), 0.8, id="one"),
        pytest.param(("subtype", "survival"), 0.7, id="two"),
        pytest.param(("subtype", "site"), 0.8, id="one that cannot be estimated is left out"),
        pytest.param(("site",), -math.inf, id="none can be estimated"),
        pytest.param(("survival:risk",), 0.9, id="a head"),
        pytest.param(("subtype", "survival:risk"), 0.85, id="a probe and a head"),
        pytest.param(("survival:hazard",), -math.inf, id="a head that the model does not have"),
        pytest.param(("last",), 30.0, id="last"),
    ],
)
def test_the_score_is_the_mean_of_the_overall_values_on_validation(targets, score):
    table = pd.concat(
        [
            probes(subtype=0.8, survival=0.6, site=math.nan),
            probes(survival=0.9).assign(method="risk"),
        ]
    )
    assert selection_score(table, targets, step=30) == pytest.approx(score)


def cases(num_val: int = 8, *, labelled: bool = True, survival: bool = True) -> pd.DataFrame:
    split = ["train"] * 12 + ["val"] * num_val + ["test"] * 4
    number = np.arange(len(split))
    return pd.DataFrame(
        {
            "split": split,
            "site": "brca",
            "subtype": number % 2 if labelled else -1,
            "time": number + 1.0 if survival else math.nan,
            "event": 1 if survival else -1,
        }
    )


@pytest.mark.parametrize(
    ("table", "targets"),
    [
        pytest.param(cases(), ("subtype", "survival"), id="all known"),
        pytest.param(cases(survival=False), ("subtype", "survival"), id="one of two is enough"),
        pytest.param(cases(labelled=False), ("survival",), id="survival alone"),
        pytest.param(cases(), ("survival:risk", "subtype:similarity"), id="heads"),
        pytest.param(cases(survival=False), ("survival:risk", "subtype"), id="a probe is enough"),
        pytest.param(cases(labelled=False), ("survival:hazard", "subtype"), id="a head is enough"),
        pytest.param(cases(0, labelled=False), ("last",), id="the last step needs no validation"),
    ],
)
def test_labels_that_can_pick_a_checkpoint(table, targets):
    check_selection(table, ("brca",), targets)


def test_no_probe_is_fitted_for_a_head(monkeypatch):
    for name in ("survival_probe", "subtype_probe"):
        monkeypatch.setattr(f"modaltune_jax.probes.{name}", None)  # to be fitted would raise
    check_selection(cases(), ("brca",), ("survival:risk", "subtype:similarity"))
    # A probe of survival could not be fitted on these.
    table = cases()
    table.loc[table["split"] == "train", "event"] = 0
    check_selection(table, ("brca",), ("survival:risk",))


def test_no_training_case_is_refused():
    with pytest.raises(InputError, match="none of the 12 cases is in the split train"):
        check_selection(cases().query("split != 'train'"), ("brca",), ("last",))


@pytest.mark.parametrize(
    ("table", "targets"),
    [
        pytest.param(cases(0), ("subtype", "survival"), id="no validation case"),
        pytest.param(cases(labelled=False), ("subtype",), id="no subtypes"),
        pytest.param(cases(survival=False), ("survival",), id="no survival"),
        pytest.param(cases(), ("site",), id="one site only"),
        pytest.param(cases(survival=False), ("survival:risk",), id="a head without survival"),
        pytest.param(cases(labelled=False), ("subtype:similarity",), id="a head without subtypes"),
        pytest.param(cases(0), ("survival:risk",), id="a head without validation case"),
    ],
)
def test_labels_that_cannot_are_refused_before_training(table, targets):
    with pytest.raises(InputError, match=r"\d validation cases cannot pick a checkpoint by .*best=last"):
        check_selection(table, ("brca",), targets)
