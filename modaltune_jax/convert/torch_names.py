"""The names that a torch state dict's pickle uses, and what each means here.

These are all there are, and a "call" only notes down its arguments: a file can describe tensors, and no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """What the pickle says about a storage; its bytes lie elsewhere in the file.

    Attributes:
      key: its name in the file.
      dtype: of its elements; uint8 if it is untyped.
      size: number of elements in the file.
      view: first element and number of elements of the part that is meant, or None for all.
    """

    key: str
    dtype: np.dtype
    size: int
    view: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """What the pickle says about a tensor, unchecked but for its types; sizes count elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class RefusedError(Exception):
    """The pickle is whole, but does something that a dict of tensors does not need."""


DTYPES = {
    ("torch", name): np.dtype(dtype)
    for name, dtype in {
        "float64": "<f8",
        "float32": "<f4",
        "float16": "<f2",
        "bfloat16": ml_dtypes.bfloat16,
        "int64": "<i8",
        "int32": "<i4",
        "int16": "<i2",
        "int8": "i1",
        "uint64": "<u8",
        "uint32": "<u4",
        "uint16": "<u2",
        "uint8": "u1",
        "bool": "?",
    }.items()
}

STORAGES = {
    ("torch", "DoubleStorage"): DTYPES["torch", "float64"],
    ("torch", "FloatStorage"): DTYPES["torch", "float32"],
    ("torch", "HalfStorage"): DTYPES["torch", "float16"],
    ("torch", "BFloat16Storage"): DTYPES["torch", "bfloat16"],
    ("torch", "LongStorage"): DTYPES["torch", "int64"],
    ("torch", "IntStorage"): DTYPES["torch", "int32"],
    ("torch", "ShortStorage"): DTYPES["torch", "int16"],
    ("torch", "CharStorage"): DTYPES["torch", "int8"],
    ("torch", "ByteStorage"): DTYPES["torch", "uint8"],
    ("torch", "BoolStorage"): DTYPES["torch", "bool"],
    ("torch.storage", "UntypedStorage"): DTYPES["torch", "uint8"],
}


def shown(value: Any) -> str:
    """A value of a pickle in a few plain characters: text as text, of all else only the type."""
    if not isinstance(value, str):
        return f"of type {type(value).__name__}"
    return ascii(value if len(value) <= 80 else value[:77] + "...")


def natural(value: Any) -> int:
    """The value, if it can be a size."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a size that is no natural number")
    return value


def fill(target: dict[Any, Any], items: Iterable[Any]) -> dict[Any, Any]:
    """Puts pairs into a dict, each key once."""
    for key, value in items:
        # Hashes of nested tuples take exponential time, and those of long integers can be made to collide.
        if not isinstance(key, str) and not (isinstance(key, int) and key.bit_length() < 64):
            raise RefusedError(f"has a dict key {shown(key)}")
        if key in target:
            raise ValueError(f"the key {shown(key)} comes twice")
        target[key] = value
    return target


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    """Python 2 gives a list of pairs, each a list; Python 3 gives nothing and fills the dict afterwards."""
    if not isinstance(items, list | tuple) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in items
    ):
        raise ValueError("an OrderedDict of something that is no list of pairs")
    return fill({}, items)


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or any(
        type(value) is not int or abs(value) >= 2**63 for value in values
    ):
        raise ValueError("a shape that is no tuple of integers")
    return values


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, storage.dtype, natural(offset), _integers(shape), _integers(strides))


def _tensor_v2(*arguments: Any) -> Tensor:
    """After the strides come requires_grad, hooks and, for conjugated or negated views, metadata."""
    if len(arguments) > 6 and arguments[6]:
        raise RefusedError("holds a conjugated or negated view")
    return _tensor(*arguments[:4])


def _tensor_v3(*arguments: Any) -> Tensor:
    """Like version 2, with a dtype before the metadata, since the storage is untyped."""
    if not isinstance(arguments[6], np.dtype):
        raise ValueError("a tensor without a dtype")
    return dataclasses.replace(_tensor_v2(*arguments[:6], *arguments[7:]), dtype=arguments[6])


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return data


CALLS: dict[tuple[str, str], tuple[Callable[..., Any], int, int]] = {
    ("collections", "OrderedDict"): (_ordered_dict, 0, 1),
    ("torch", "Size"): (_integers, 1, 1),
    ("torch._utils", "_rebuild_tensor"): (_tensor, 4, 4),
    ("torch._utils", "_rebuild_tensor_v2"): (_tensor_v2, 6, 7),
    ("torch._utils", "_rebuild_tensor_v3"): (_tensor_v3, 7, 8),
    ("torch._utils", "_rebuild_parameter"): (_parameter, 3, 3),
    ("torch._utils", "_rebuild_parameter_with_state"): (_parameter, 4, 4),
}
"""What may be called: our function, and how many arguments it takes at least and at most."""
