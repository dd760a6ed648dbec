"""Examples in the docstrings of the metrics, and on their page."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


@pytest.mark.parametrize("name", ["classification", "curves", "intervals"])
def test_examples(name):
    result = doctest.testmod(import_module(f"modaltune_jax.metrics.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_examples_of_the_page():
    text = "".join(
        re.findall(r"^```pycon\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    )
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner().run(examples)
    assert result.attempted > 10
    assert result.failed == 0


def test_the_page_names_every_metric():
    text = PAGE.read_text(encoding="utf-8")
    for module, name in re.findall(r"`(\w+)\.(\w+)`", text):
        assert hasattr(import_module(f"modaltune_jax.metrics.{module}"), name), name
