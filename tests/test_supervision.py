"""What is fitted on the labels of training cases, and which labels are too few."""

from pathlib import Path

import numpy as np
import pytest

from configs import common
from modaltune_jax.config import unpack
from modaltune_jax.supervision import supervise
from modaltune_jax.targets import load_encoder
from modaltune_jax.types import InputError
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("supervision")


def supervised(folder, column="", value=0.0, site="", **weights):
    """Supervision after a column of labels was overwritten, at one site or all."""
    config = tiny.config_dict(folder)
    config.loss = common.loss(**weights)
    config.loss.discrete_hazard.num_bins = 2
    _, records, _ = tiny.experiment(folder)
    if column:
        records.table = records.table.copy()
        rows = records.table["site"] == site if site else slice(None)
        records.table.loc[rows, column] = value
    encoder = load_encoder(str(folder / "sentences.npz"))
    return records, supervise(records, encoder, unpack(config).loss)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        pytest.param({"column": "event", "cox": 1.0}, "loss.cox and loss.ranking to 0", id="Cox, no death"),
        pytest.param({"column": "event", "ranking": 1.0}, "no training case in", id="ranking, no death"),
        pytest.param(
            {"column": "event", "site": "sim_lung", "discrete_hazard": 1.0},
            "site sim_lung: 0 uncensored train times",
            id="hazards, no death at one site",
        ),
        pytest.param(
            {"column": "subtype", "value": -1, "text_similarity": 1.0},
            "has a class: set the weight of loss.text_similarity to 0",
            id="similarity, no class",
        ),
    ],
)
def test_labels_that_a_loss_cannot_do_without(folder, changes, part):
    with pytest.raises(InputError) as info:
        supervised(folder, **changes)
    assert part in str(info.value)
    assert "\n" not in str(info.value)


def test_no_label_is_asked_for_by_the_distillation(folder):
    _, supervision = supervised(folder, "event", distillation=1.0)
    assert supervision.heads is None


def test_bins_are_those_of_each_site_and_of_training_cases(folder):
    records, supervision = supervised(folder, discrete_hazard=1.0)
    for row, site in enumerate(records.sites):
        cases = records.table.iloc[records.rows("train", site)]
        median = cases.loc[cases["event"] == 1, "time"].median()
        np.testing.assert_allclose(supervision.space.edges[row], [median], rtol=1e-6)
        assert supervision.labels.horizons[site] == cases["time"].max()


def test_what_all_classes_share_tells_none_apart(folder):
    _, supervision = supervised(folder, text_similarity=1.0)
    bank = supervision.space.bank
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1.0, rtol=1e-6)
    # Around the mean of k vectors, their cosines are negative on average.
    assert (bank @ bank.T)[~np.eye(len(bank), dtype=bool)].mean() < 0.0


def test_classes_of_a_site_weigh_the_same(folder):
    records, supervision = supervised(folder, text_similarity=1.0)
    space = supervision.space
    for position, site in enumerate(records.sites):
        label = records.table.iloc[records.rows("train", site)]["subtype"].to_numpy()
        weight = space.class_weight[space.class_site == position]
        total = np.bincount(label, minlength=len(weight)) * weight
        np.testing.assert_allclose(total[total > 0], len(label) / np.count_nonzero(total), rtol=1e-6)
