"""Examples in the docstrings of the metrics."""

import doctest
from importlib import import_module

import pytest

MODULES = ("classification", "curves", "intervals")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(import_module(f"modaltune_jax.metrics.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
