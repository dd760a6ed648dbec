"""Recorded numbers of the public reference (tests/data), and how to put its weights into a module."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import nnx

from modaltune_jax.convert import rules

DATA = pathlib.Path(__file__).parents[1] / "data"


def load(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The configuration and the arrays of one recorded file."""
    manifest = json.loads((DATA / "manifest.json").read_text())
    with np.load(DATA / f"{name}.npz") as arrays:
        return manifest[name], dict(arrays)


def weights(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The recorded tensors by public name."""
    return {name.removeprefix("w/"): array for name, array in arrays.items() if name.startswith("w/")}


def fill(module: nnx.Module, tensors: Mapping[str, np.ndarray], table: Sequence[rules.Rule]) -> nnx.Module:
    """The module with all its parameters taken from public tensors."""
    abstract = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    nnx.update(module, rules.to_params(tensors, abstract, table))
    return module


def relative_error(ours: jax.Array, theirs: np.ndarray) -> float:
    """Greatest absolute error over greatest absolute value."""
    assert ours.shape == theirs.shape
    return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs)) / np.max(np.abs(theirs)))
