"""Table-driven, strict conversion between public tensor names and our parameters, both ways.

A table is a sequence of rules, the first that fits decides. Every tensor must fit a rule and every
parameter must be filled, with its own shape; anything else is an error that names what is wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from modaltune_jax.types import InputError

_NUM_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Transform:
    """A change of array layout and its exact inverse."""

    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]


IDENTITY = Transform(lambda x: x, lambda x: x)
TRANSPOSE = Transform(np.transpose, np.transpose)


@dataclasses.dataclass(frozen=True)
class Rename:
    """One tensor is one parameter.

    Attributes:
      name: template of the public name; a placeholder such as `{i}` stands for any text, dots included.
      path: template of the parameter's dotted path, with the same placeholders.
      transform: from public layout to ours.
    """

    name: str
    path: str
    transform: Transform = IDENTITY


@dataclasses.dataclass(frozen=True)
class Gather:
    """Many tensors are one parameter, e.g. little networks stacked into one array.

    Attributes:
      path: dotted path of the parameter.
      gather: from all tensors to the array and the names that it used; a KeyError means a missing tensor.
      scatter: from the array back to named tensors.
    """

    path: str
    gather: Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, Iterable[str]]]
    scatter: Callable[[np.ndarray], dict[str, np.ndarray]]


Rule = Rename | Gather
Params = dict[Any, Any]


def to_params(tensors: Mapping[str, np.ndarray], abstract: Params, rules: Sequence[Rule]) -> Params:
    """Converts public tensors to parameters.

    Args:
      tensors: flat, by public name.
      abstract: nested dict of anything with shape and dtype, e.g. the pure dict of `nnx.eval_shape`.
      rules: the table.

    Returns:
      A nested dict like `abstract`, of numpy arrays in its dtypes.

    Raises:
      InputError: a tensor fits no parameter, a parameter stays empty or is filled twice, or a shape differs.
    """
    leaves = _flatten(abstract)
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []

    def fill(path: str, array: np.ndarray, source: str):
        if path in arrays:
            problems.append(f"'{source}' fills {path} a second time")
        elif array.shape != tuple(leaves[path].shape):
            problems.append(f"'{source}' gives {path} shape {array.shape}, not {tuple(leaves[path].shape)}")
        arrays[path] = array

    left = dict(tensors)
    for rule in (rule for rule in rules if isinstance(rule, Gather) and rule.path in leaves):
        try:
            array, used = rule.gather(tensors)
        except KeyError as error:
            problems.append(f"no tensor {error} for {rule.path}")
            continue
        fill(rule.path, array, rule.path)
        for name in used:
            left.pop(name, None)
    for name, tensor in left.items():
        path, transform = _translate(name, [(r.name, r.path, r.transform.forward) for r in _renames(rules)])
        if path in leaves:
            fill(path, transform(np.asarray(tensor)), name)
        else:
            problems.append(f"unexpected tensor '{name}' {np.shape(tensor)}")
    problems += [f"nothing for {path} {tuple(leaves[path].shape)}" for path in leaves if path not in arrays]
    _raise_if(problems)
    filled = [arrays[path].astype(leaf.dtype, copy=False) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), filled)


def to_tensors(params: Params, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Converts parameters back to public tensors: the inverse of `to_params`, bit for bit.

    Raises:
      InputError: a parameter fits no rule, or two give the same tensor.
    """
    gathers = {rule.path: rule for rule in rules if isinstance(rule, Gather)}
    renames = [(r.path, r.name, r.transform.inverse) for r in _renames(rules)]
    tensors: dict[str, np.ndarray] = {}
    problems = []
    for path, leaf in _flatten(params).items():
        array = np.asarray(leaf)
        if path in gathers:
            named = gathers[path].scatter(array)
        else:
            name, transform = _translate(path, renames)
            named = {} if name is None else {name: np.asarray(transform(array), order="C")}
        if not named:
            problems.append(f"no rule for {path} {array.shape}")
        problems += [f"{path} gives '{name}' a second time" for name in named if name in tensors]
        tensors.update(named)
    _raise_if(problems)
    return tensors


def strip_prefix(tensors: Mapping[str, np.ndarray], anchor: str) -> dict[str, np.ndarray]:
    """Drops what stands before `anchor` (e.g. "module." before "cls_token") from all names that have it."""
    prefixes = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    prefix = min(prefixes, key=len, default="")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_safetensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a safetensors file in its stored dtype.

    Raises:
      InputError: there is no such file, it is a torch pickle, or it is damaged.
    """
    path = pathlib.Path(path)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        raise InputError(
            f"{path} is a torch pickle, which is not read here; convert it once where torch is installed: "
            f"`safetensors.torch.save_file(weights, '{path.stem}.safetensors')` with the flat dict of "
            "tensors that `torch.load(..., weights_only=True)` gives, often under its key 'model'."
        )
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of the encoder's safetensors file.")
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); download it again.") from error


def _flatten(tree: Params) -> dict[str, Any]:
    """Leaves by dotted path, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _renames(rules: Sequence[Rule]) -> list[Rename]:
    return [rule for rule in rules if isinstance(rule, Rename)]


def _translate(text: str, table: Sequence[tuple[str, str, Callable]]) -> tuple[str | None, Callable]:
    """The first row (template, other template, function) that fits: the other name, and the function."""
    for template, other, function in table:
        if match := re.fullmatch(_pattern(template), text):
            return other.format_map(match.groupdict()), function
    return None, IDENTITY.forward


@functools.cache
def _pattern(template: str) -> str:
    """A regular expression in which every placeholder is a named group."""
    parts = re.split(r"\{(\w+)\}", template)
    return "".join(f"(?P<{part}>.*)" if i % 2 else re.escape(part) for i, part in enumerate(parts))


def _raise_if(problems: Sequence[str]):
    if problems:
        shown = "; ".join(problems[:_NUM_SHOWN])
        more = f"; and {len(problems) - _NUM_SHOWN} more" if len(problems) > _NUM_SHOWN else ""
        raise InputError(
            f"The weights do not fit the model, check that file and config agree: {shown}{more}."
        )
