"""Recorded numbers of the public reference (`tests/data`), and how to put its weights into a module."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modaltune_jax.convert import rules

DATA = Path(__file__).parent / "data"
MANIFEST = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
"""The configuration of every recorded file, by name."""


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of one recorded file."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def weights(arrays: Mapping[str, np.ndarray], prefix: str = "w/") -> dict[str, np.ndarray]:
    """The arrays below a prefix; without another these are the weights, by public name."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def fill(module: nnx.Module, tensors: Mapping[str, np.ndarray], table: Sequence[rules.Rule]) -> nnx.Module:
    """The module with all its parameters taken from public tensors."""
    abstract = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    nnx.update(module, jax.tree.map(jnp.asarray, rules.to_params(tensors, abstract, table)))
    return module


def relative_error(actual, expected) -> float:
    """Largest absolute error over the largest absolute value expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
