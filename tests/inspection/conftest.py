"""Slides of these tests are looked at in the process of the test, which is faster."""

import pytest

from modaltune_jax.inspection import slide_runs


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(slide_runs, "FEWEST", 0)
