"""Zero-shot classes from sentences: the ensemble of prompts, scores, ranks, and what is refused."""

import doctest

import numpy as np
import pytest

from modaltune_jax import class_bank as module
from modaltune_jax.class_bank import ClassBank, class_bank, prompts_from_templates
from modaltune_jax.types import InputError

VECTORS = {
    "a lung": [3.0, 0.0, 0.0],
    "lungs": [0.0, 0.5, 0.0],
    "a kidney": [0.0, 0.0, 7.0],
    "nothing": [-3.0, 0.0, 0.0],
}


class WordEncoder:
    """Vectors of any norm from a table; remembers what it was asked."""

    dim = 3
    fingerprint = "0"

    def __init__(self):
        self.asked = []

    def encode(self, sentences):
        self.asked += sentences
        return np.array([VECTORS[sentence] for sentence in sentences], np.float32).reshape(-1, self.dim)


@pytest.fixture
def bank():
    return class_bank({"lung": ["a lung", "lungs"], "kidney": ["a kidney"]}, WordEncoder())


def test_doctests():
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_every_sentence_weighs_the_same_whatever_its_norm(bank):
    assert bank.names == ("lung", "kidney")
    assert bank.vectors.dtype == np.float32
    half = np.sqrt(0.5)
    np.testing.assert_allclose(bank.vectors, [[half, half, 0], [0, 0, 1]], rtol=1e-6)


def test_each_sentence_is_encoded_once():
    encoder = WordEncoder()
    class_bank({"x": ["a lung", "lungs", "a lung"], "y": ["lungs"]}, encoder)
    assert sorted(encoder.asked) == ["a lung", "lungs"]


def test_scores_are_cosines_of_embeddings_of_any_norm(bank):
    embeddings = np.array([[2.0, 2.0, 0.0], [0.0, 0.0, -9.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    half = np.sqrt(0.5)
    expected = [[1, 0], [0, -1], [0.5, half], [0, 0]]
    scores = bank.scores(embeddings)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(bank.scores((embeddings * 1e-3).astype(np.float16)), expected, atol=1e-3)
    np.testing.assert_allclose(bank.scores(embeddings[:0]), np.zeros((0, 2)))


def test_rank_is_best_first_and_keeps_the_order_of_equals():
    bank = ClassBank(("a", "b", "c"), np.eye(3, dtype=np.float32))
    embeddings = np.array([[0.0, 3.0, 4.0], [1.0, 0.0, 0.0]])
    first, second = bank.rank(embeddings)
    assert [name for name, _ in first] == ["c", "b", "a"]
    np.testing.assert_allclose([score for _, score in first], [0.8, 0.6, 0.0], rtol=1e-6)
    assert second == [("a", 1.0), ("b", 0.0), ("c", 0.0)]
    assert bank.rank(embeddings, top=1) == [[first[0]], [second[0]]]


def test_embeddings_that_cannot_be_scored(bank):
    with pytest.raises(InputError, match="embeddings of width 4 cannot be compared with classes of width 3"):
        bank.scores(np.zeros((2, 4)))
    with pytest.raises(InputError, match="embedding 1 is not finite"):
        bank.rank(np.array([[1.0, 0.0, 0.0], [np.nan, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        pytest.param({}, "there are no classes", id="no classes"),
        pytest.param({"lung": []}, "sentences of class 'lung' are .*: give a list", id="no sentences"),
        pytest.param({"lung": "a lung"}, "are 'a lung': give a list", id="a string"),
        pytest.param({"x": ["a lung", "nothing"]}, "class 'x' have no direction in common", id="opposites"),
    ],
)
def test_prompts_that_make_no_bank(prompts, message):
    with pytest.raises(InputError, match=message):
        class_bank(prompts, WordEncoder())


def test_templates_of_both_spellings():
    prompts = prompts_from_templates(
        {"luad": ["adenocarcinoma", "LUAD"], "lusc": ("squamous cell carcinoma",)},
        ["CLASSNAME, H&E.", "{} is shown; {}."],
    )
    assert prompts == {
        "luad": (
            "adenocarcinoma, H&E.",
            "adenocarcinoma is shown; adenocarcinoma.",
            "LUAD, H&E.",
            "LUAD is shown; LUAD.",
        ),
        "lusc": (
            "squamous cell carcinoma, H&E.",
            "squamous cell carcinoma is shown; squamous cell carcinoma.",
        ),
    }


@pytest.mark.parametrize(
    ("classes", "templates", "message"),
    [
        pytest.param({}, ["{}"], "there are no classes: give at least one with its names", id="no classes"),
        pytest.param(
            {"a": "adenoma"}, ["{}"], "names of class 'a' are 'adenoma': give a list", id="a string"
        ),
        pytest.param({"a": ["adenoma"]}, [], r"templates are \[\]: give a list", id="no templates"),
        pytest.param({"a": ["adenoma"]}, "{}.", r"templates are '\{\}\.'", id="one template"),
        pytest.param({"a": ["b"]}, ["an image."], "template 'an image.' has no place for", id="no place"),
    ],
)
def test_templates_that_make_no_prompts(classes, templates, message):
    with pytest.raises(InputError, match=message):
        prompts_from_templates(classes, templates)
