"""A case as a TFDS example, and the checksum that travels with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy and TFDS the name "bfloat16")
import numpy as np
import xxhash
from jaxtyping import Shaped

from modaltune_jax.inputs.storage.array_record import Record
from modaltune_jax.inputs.storage.example_bytes import Value, serialize
from modaltune_jax.inputs.storage.example_parts import take_apart
from modaltune_jax.types import Case, Labels, Slide

_TEXTS = ("diagnosis", "stage", "t", "n", "m")
_INTEGERS = ("subtype", "event")
_REALS = ("time", "age")
# So much at a time is read, checked and cast: what stays in a core's cache.
_PIECE_BYTES = 1 << 20


def features_dict(feature_dim: int, feature_dtype: str):
    """The `tfds.features.FeaturesDict` of records; slides of a case are stacked along the tile axis."""
    import tensorflow_datasets as tfds

    # A tensor without columns cannot be read back, so a data set without slides gets one column.
    features = _tensor((None, max(feature_dim, 1)), feature_dtype)
    return tfds.features.FeaturesDict({**fields_dict(), "features": features})


def fields_dict():
    """The same without the tile features."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "case_id": tfds.features.Text(),
            "site": tfds.features.Text(),
            "split": tfds.features.Text(),
            "coords": _tensor((None, 2), "int32"),
            "slide_ids": tfds.features.Sequence(tfds.features.Text()),
            "slide_lengths": _tensor((None,), "int32"),
            "patch_sizes_level0": _tensor((None,), "int32"),
            "expression": _tensor((None,), "float32"),
            **{name: tfds.features.Text() for name in _TEXTS},
            **{name: tfds.features.Scalar(np.int32) for name in _INTEGERS},
            # A TFDS scalar keeps 32 bits of a real number; a tensor of bytes keeps all.
            **{name: _tensor((), "float64") for name in _REALS},
            "variables": tfds.features.Text(),  # JSON: every data set has its own
            "xxh3": tfds.features.Text(),
        }
    )


def encode(case: Case) -> dict[str, Value]:
    """The example of a case, for `example_bytes.serialize`. An absent expression is empty."""
    features = [slide.features for slide in case.slides] or np.zeros(0, np.int32)
    return {"xxh3": checksum(case), **_fields(case), "features": features}


def decode(record: Record, fields: Any, dtype: np.dtype, out: Shaped[np.ndarray, "l d"]) -> Case:
    """The case of a record.

    Args:
      record: an example as `encode` makes it.
      fields: `fields_dict()`.
      dtype: of the tile features in the record.
      out: where to put the tile features of all slides, cast if need be; contiguous. Those of the case are
        views of it, read-only like all its arrays.

    Raises:
      ValueError: the record is damaged, or has another number of tiles.
    """
    rest, (features, xxh3) = take_apart(record, "features", "xxh3")
    row_bytes = out.shape[1] * dtype.itemsize
    if features.size != len(out) * row_bytes:
        num_tiles = features.size / max(row_bytes, 1)
        raise ValueError(f"it has {num_tiles:g} tiles where the index says {len(out)}")
    digest = xxhash.xxh3_64(rest)
    for piece in _read_features(record, features.start, dtype, out):
        digest.update(piece)
    if digest.hexdigest().encode() != record.read(*xxh3):
        raise ValueError("its checksum differs from the one written")
    return _case(fields.deserialize_example_np(rest), out)


def checksum(case: Case) -> str:
    """XXH3 of everything in a case: all other fields as serialized, then the tile features."""
    digest = xxhash.xxh3_64(b"".join(serialize(_fields(case))))
    for slide in case.slides:
        digest.update(_bytes(slide.features))
    return digest.hexdigest()


def array_checksum(array: np.ndarray) -> str:
    """XXH3 of an array's bytes."""
    return xxhash.xxh3_64_hexdigest(_bytes(array))


def _fields(case: Case) -> dict[str, Value]:
    """The example without tile features and checksum."""
    nothing = np.zeros(0, np.int32)
    labels = _plain(case.labels)
    return {
        "case_id": case.id,
        "site": case.site,
        "split": case.split,
        "slide_ids": [slide.id for slide in case.slides],
        "slide_lengths": np.array([len(slide.features) for slide in case.slides], np.int32),
        "patch_sizes_level0": np.array([slide.patch_size_level0 for slide in case.slides], np.int32),
        **{name: labels[name] for name in (*_TEXTS, *_INTEGERS)},
        **{name: np.array(labels[name]) for name in _REALS},
        "variables": json.dumps(dict(case.variables)),
        "expression": nothing if case.expression is None else case.expression.astype(np.float32, copy=False),
        "coords": [slide.coords.astype(np.int32, copy=False) for slide in case.slides] or nothing,
    }


def _case(example: Mapping[str, Any], features: Shaped[np.ndarray, "l d"]) -> Case:
    """The case of an example without tile features, and these."""
    ends = np.cumsum(example["slide_lengths"])
    read_only = features.view()
    read_only.setflags(write=False)
    slides = tuple(
        Slide(
            id=slide_id.decode(),
            features=read_only[end - length : end],
            coords=example["coords"][end - length : end],
            patch_size_level0=int(size),
        )
        for slide_id, length, end, size in zip(
            example["slide_ids"], example["slide_lengths"], ends, example["patch_sizes_level0"], strict=True
        )
    )
    texts = {name: example[name].decode() for name in ("case_id", "site", "split", *_TEXTS)}
    labels: dict[str, Any] = {
        **{name: texts[name] for name in _TEXTS},
        **{name: int(example[name]) for name in _INTEGERS},
        **{name: float(example[name]) for name in _REALS},
    }
    expression = example["expression"] if example["expression"].size else None
    variables = json.loads(example["variables"])
    return Case(
        texts["case_id"], texts["site"], texts["split"], slides, expression, Labels(**labels), variables
    )


def _read_features(
    record: Record, start: int, dtype: np.dtype, out: Shaped[np.ndarray, "l d"]
) -> Iterator[memoryview]:
    """Fills `out`, and yields the bytes as they were stored, some rows at a time."""
    row_bytes = out.shape[1] * dtype.itemsize
    num_rows = max(1, _PIECE_BYTES // max(row_bytes, 1))
    stored = None if out.dtype == dtype else np.empty((num_rows, out.shape[1]), dtype)
    for first in range(0, len(out), num_rows):
        rows = out[first : first + num_rows]
        piece = rows if stored is None else stored[: len(rows)]
        content = _bytes(piece)
        record.read_into(start + first * row_bytes, content)
        yield content
        if stored is not None:
            rows[:] = piece


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array, without a copy if it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _plain(labels: Labels) -> dict[str, Any]:
    """Labels as built-in types, whatever number types a reader put there."""
    kinds = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_INTEGERS, int), **dict.fromkeys(_REALS, float)}
    return {name: kinds[name](value) for name, value in dataclasses.asdict(labels).items()}


def _tensor(shape: tuple[int | None, ...], dtype: str):
    import tensorflow_datasets as tfds

    # Without the encoding, numbers become protobuf lists: twice the size, ten times the writing time.
    return tfds.features.Tensor(shape=shape, dtype=np.dtype(dtype), encoding="bytes")
