"""What runs say of every case, as a file."""

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import case_scores
from modaltune_jax.heads_table import head_predictions
from modaltune_jax.metrics.classification import balanced_accuracy
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.predictions import HeadLabels
from modaltune_jax.probes import probe_predictions
from modaltune_jax.scores import POOLED, score_table
from modaltune_jax.types import InputError

SITES = ("brca", "rcc")
LABELS = HeadLabels({}, {}, ("a", "b", "c", "d", "e"), (0, 0, 1, 1, 1))


def cases() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    num = 80
    site = np.array(SITES)[np.arange(num) % 2]
    return pd.DataFrame(
        {
            "case_id": ["NA", *(f"case{i}" for i in range(1, num))],
            "split": rng.choice(["train", "val", "test"], num, p=[0.6, 0.2, 0.2]),
            "site": site,
            "subtype": np.where(rng.random(num) < 0.1, -1, rng.integers(np.where(site == "rcc", 3, 2))),
            "time": np.where(rng.random(num) < 0.1, np.nan, rng.exponential(30, num)),
            "event": rng.integers(0, 2, num),
        }
    )


def predicted(table: pd.DataFrame):
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(len(table), 3, 5)).astype(np.float32)
    embeddings[:, 1, 0] += table["subtype"]
    outputs = {
        "embedding": embeddings,
        "risk": rng.normal(size=len(table)).astype(np.float32),
        "similarity": rng.normal(size=(len(table), 5)).astype(np.float32),
    }
    return [*probe_predictions(embeddings, table, SITES), *head_predictions(outputs, table, SITES, LABELS)]


def rescored(rows: pd.DataFrame) -> float:
    if rows["target"].iloc[0] == "survival":
        rows = rows[rows["time"].notna() & (rows["event"] >= 0)]
        return harrell_c(*(rows[name].to_numpy() for name in ("predicted", "time", "event"))).value
    rows = rows[rows["label"] >= 0]
    return balanced_accuracy(rows["label"].to_numpy(), rows["predicted"].to_numpy(int)).value


def test_the_scores_of_a_run_follow_from_its_rows(tmp_path):
    table = cases()
    said = predicted(table)
    case_scores.write(tmp_path / case_scores.NAME, case_scores.of_predicted(said, table))
    rows = case_scores.read(tmp_path / case_scores.NAME)
    assert rows["case_id"].iloc[0] == "NA"
    pd.testing.assert_frame_equal(rows, case_scores.of_predicted(said, table))
    scores = score_table(said, table, ("test",)).set_index(["target", "method", "site"])["value"]
    keys = ["target", "method", "scope"]
    for key, group in rows[rows["split"] == "test"].groupby(keys):
        target, method, scope = key
        where = "overall" if target == "site" else scope
        assert rescored(group) == pytest.approx(scores[target, method, where], abs=1e-12), key


def test_probabilities_are_those_of_the_classes_of_the_scope():
    rows = case_scores.of_predicted(predicted(cases()), cases())
    classes = rows[rows["target"] != "survival"]
    num_classes = {("subtype", "brca"): 2, ("subtype", "rcc"): 3, ("subtype", POOLED): 5, ("site", POOLED): 2}
    for (target, _, scope), group in classes.groupby(["target", "method", "scope"]):
        values = case_scores.probabilities(group)
        assert values.shape == (len(group), num_classes[target, scope])
        np.testing.assert_allclose(values.sum(axis=1), 1.0)
        np.testing.assert_array_equal(values.argmax(axis=1), group["predicted"])
        assert set(group["site"]) == ({scope} if scope in SITES else set(SITES))
    assert case_scores.probabilities(rows[rows["target"] == "survival"]).shape[1] == 0


def test_what_cannot_be_predicted_has_no_row_without_a_reason():
    table = cases()
    table.loc[(table["split"] == "train") & (table["site"] == "rcc"), "event"] = 0
    rows = case_scores.of_predicted(probe_predictions(np.ones((80, 1, 2), np.float32), table, SITES), table)
    missing = rows[(rows["target"] == "survival") & (rows["scope"] == "rcc")]
    assert missing["predicted"].isna().all()
    assert set(missing["reason"]) == {"no death seen in training"}
    assert (rows["predicted"].isna() == (rows["reason"] != "")).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "does not exist: either the run is not finished", id="no file"),
        pytest.param("case_id,split\n", "lacks column", id="another file"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / case_scores.NAME).write_text(text)
    with pytest.raises(InputError, match=message):
        case_scores.read(tmp_path / case_scores.NAME)
