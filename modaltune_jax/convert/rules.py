"""Table-driven, strict conversion between public tensor names and our parameters, both ways.

A table is a sequence of rules. Every tensor must fit exactly one rule that leads to a parameter, or a
rule that says it is left out, and every parameter must be filled, with its own shape, from a float of no
more bits than its own. Anything else is one error that lists all that is wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from modaltune_jax.types import InputError

_NUM_SHOWN = 20


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


@dataclasses.dataclass(frozen=True)
class Skip:
    """Tensors of the public file that the model does not have, known and harmless.

    Attributes:
      name: template of their names, with placeholders as in `Rename`.
      reason: what they are.
    """

    name: str
    reason: str


Rule = Rename | Gather | Skip
Params = dict[Any, Any]


class ConversionError(InputError):
    """Weights and model do not fit.

    Attributes:
      problems: every tensor and parameter that is wrong, one sentence each.
    """

    def __init__(self, problems: Sequence[str], path: Path | None = None):
        self.problems = tuple(problems)
        shown = "; ".join(problems[:_NUM_SHOWN])
        more = f"; and {len(problems) - _NUM_SHOWN} more" if len(problems) > _NUM_SHOWN else ""
        where = f"{path}: " if path else ""
        super().__init__(
            f"{where}the weights do not fit the model, check that file and config agree: {shown}{more}"
        )


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the name of the file that is converted before a `ConversionError`."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(error.problems, path) from error


def to_params(tensors: Mapping[str, np.ndarray], abstract: Params, rules: Sequence[Rule]) -> Params:
    """Converts public tensors to parameters, reading one after the other.

    Args:
      tensors: flat, by public name; may be a file that is read as it is asked.
      abstract: nested dict of anything with shape and dtype, e.g. the pure dict of `nnx.eval_shape`.
      rules: the table.

    Returns:
      A nested dict like `abstract`, of contiguous numpy arrays in its dtypes.

    Raises:
      ConversionError: a tensor fits no parameter or several, or one and a `Skip`; a parameter stays empty or
        is filled twice; a shape or dtype differs.
    """
    leaves = flatten(abstract)
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []

    def fill(path: str, array: np.ndarray, source: str):
        leaf = leaves[path]
        if path in arrays:
            problems.append(f"'{source}' fills {path} a second time")
        elif array.shape != tuple(leaf.shape):
            problems.append(f"'{source}' gives {path} shape {array.shape}, not {tuple(leaf.shape)}")
        elif not _widens(array.dtype, leaf.dtype):
            problems.append(
                f"'{source}' is {array.dtype}, which does not fit into the {leaf.dtype} of {path}"
            )
            arrays[path] = array
            return
        # Contiguous now, so that a transposed view does not keep the source tensor in memory.
        arrays[path] = np.ascontiguousarray(array, leaf.dtype).reshape(array.shape)

    gathered: set[str] = set()
    for rule in (rule for rule in rules if isinstance(rule, Gather) and rule.path in leaves):
        try:
            array, used = rule.gather(tensors)
        except KeyError as error:
            problems.append(f"no tensor {error} for {rule.path}")
            continue
        fill(rule.path, array, rule.path)
        gathered.update(used)
    left_out = skipped(tensors, rules)
    forward = [(rule.name, rule.path, rule.transform.forward) for rule in _renames(rules)]
    for name in (name for name in tensors if name not in gathered):
        targets = {path: how for path, how in _translations(name, forward) if path in leaves}
        if misfit := _misfit(name, tensors, targets, name in left_out):
            problems.append(misfit)
        elif targets:
            ((path, transform),) = targets.items()
            fill(path, transform(np.asarray(tensors[name])), name)
    problems += [f"nothing for {path} {tuple(leaves[path].shape)}" for path in leaves if path not in arrays]
    if problems:
        raise ConversionError(problems)
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[path] for path in leaves])


def to_tensors(params: Params, rules: Sequence[Rule]) -> Computed:
    """Converts parameters back to public tensors: the inverse of `to_params`, bit for bit.

    A tensor is made when it is asked for, so that a file can be written with one copy at a time.

    Raises:
      ConversionError: a parameter fits no rule or several, or two give the same tensor.
    """
    gathers = {rule.path: rule for rule in rules if isinstance(rule, Gather)}
    inverse = [(rule.path, rule.name, rule.transform.inverse) for rule in _renames(rules)]
    tensors: dict[str, Callable[[], np.ndarray]] = {}
    problems = []
    for path, leaf in flatten(params).items():
        array = np.asarray(leaf)
        if path in gathers:
            parts = gathers[path].scatter(array)
            named = {name: functools.partial(np.asarray, part) for name, part in parts.items()}
        else:
            named = {name: functools.partial(how, array) for name, how in _translations(path, inverse)}
        if not named:
            problems.append(f"no rule for {path} {array.shape}")
        if len(named) > 1 and path not in gathers:
            problems.append(f"{path} fits several tensors: {', '.join(named)}")
        problems += [f"{path} gives '{name}' a second time" for name in named if name in tensors]
        tensors.update(named)
    if problems:
        raise ConversionError(problems)
    return Computed(tensors)


def skipped(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, str]:
    """The public tensors that the table leaves out, with the reason of each."""
    skips = [rule for rule in rules if isinstance(rule, Skip)]
    return {name: rule.reason for name in names for rule in skips if re.fullmatch(_pattern(rule.name), name)}


def strip_prefix(tensors: Mapping[str, np.ndarray], anchor: str) -> Renamed:
    """Drops what stands before `anchor` (e.g. "module." before "cls_token") from all names that have it.

    Nothing is read: the result asks `tensors`.

    Raises:
      ConversionError: two tensors then have one name.
    """
    prefixes = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    prefix = min(prefixes, key=len, default="")
    names: dict[str, str] = {}
    for name in tensors:
        short = name.removeprefix(prefix)
        if short in names:
            raise ConversionError([f"'{names[short]}' and '{name}' are both {short}"])
        names[short] = name
    return Renamed(tensors, names)


class Computed(Mapping[str, np.ndarray]):
    """Tensors that are made, and made contiguous, when they are asked for.

    Args:
      makers: by name.
    """

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]):
        self._makers = makers

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._makers[name](), order="C")

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class Renamed(Mapping[str, np.ndarray]):
    """Tensors under other names, read when they are asked for.

    Args:
      tensors: by stored name.
      names: new name -> stored name.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]):
        self._tensors, self.names = tensors, names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def flatten(tree: Params) -> dict[str, Any]:
    """Leaves by dotted path, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _renames(rules: Sequence[Rule]) -> list[Rename]:
    return [rule for rule in rules if isinstance(rule, Rename)]


def _translations(
    text: str, table: Sequence[tuple[str, str, Callable]]
) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Of every row (template, other template, function) that fits: the other name, and the function."""
    for template, other, function in table:
        if match := re.fullmatch(_pattern(template), text):
            yield other.format_map(match.groupdict()), function


def _misfit(name: str, tensors: Mapping[str, np.ndarray], targets: Collection[str], is_left_out: bool) -> str:
    """What is wrong with the places of a tensor; "" if it has one, or is left out and has none."""
    if len(targets) > 1:
        return f"'{name}' fits several parameters: {', '.join(targets)}"
    if targets and is_left_out:
        return f"'{name}' is to be left out, but {', '.join(targets)} needs it"
    if not targets and not is_left_out:
        return f"unexpected tensor '{name}' {np.shape(tensors[name])}"
    return ""


def _widens(source: np.dtype, target: np.dtype) -> bool:
    """Whether every value of a floating dtype is one of another, exactly."""
    if source == target:
        return True
    kinds = (ml_dtypes.finfo(dtype) for dtype in (source, target) if jnp.issubdtype(dtype, jnp.floating))
    limits = [(info.nmant, info.maxexp) for info in kinds]
    return len(limits) == 2 and all(mine <= other for mine, other in zip(*limits, strict=True))


@functools.cache
def _pattern(template: str) -> str:
    """A regular expression in which every placeholder is a named group."""
    parts = re.split(r"\{(\w+)\}", template)
    return "".join(f"(?P<{part}>.*)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
