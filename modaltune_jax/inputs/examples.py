"""A case as a TFDS example, and the checksum that travels with it."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy and TFDS the name "bfloat16")
import numpy as np

from modaltune_jax.types import Case, InputError, Labels, Slide

_TEXTS = ("diagnosis", "stage", "t", "n", "m")
_INTEGERS = ("subtype", "event")
_REALS = ("time", "age")


def features_dict(feature_dim: int, feature_dtype: str):
    """The `tfds.features.FeaturesDict` of records; slides of a case are stacked along the tile axis."""
    import tensorflow_datasets as tfds

    def tensor(shape: tuple[int | None, ...], dtype: str) -> tfds.features.Tensor:
        # Without it, numbers become protobuf lists: twice the size, ten times the writing time.
        return tfds.features.Tensor(shape=shape, dtype=np.dtype(dtype), encoding="bytes")

    return tfds.features.FeaturesDict(
        {
            "case_id": tfds.features.Text(),
            "site": tfds.features.Text(),
            "split": tfds.features.Text(),
            # A tensor without columns cannot be read back, so a data set without slides gets one column.
            "features": tensor((None, max(feature_dim, 1)), feature_dtype),
            "coords": tensor((None, 2), "int32"),
            "slide_ids": tfds.features.Sequence(tfds.features.Text()),
            "slide_lengths": tensor((None,), "int32"),
            "patch_sizes_level0": tensor((None,), "int32"),
            "expression": tensor((None,), "float32"),
            **{name: tfds.features.Text() for name in _TEXTS},
            **{name: tfds.features.Scalar(np.int32) for name in _INTEGERS},
            # A TFDS scalar keeps 32 bits of a real number; a tensor of bytes keeps all.
            **{name: tensor((), "float64") for name in _REALS},
            "variables": tfds.features.Text(),  # JSON: every data set has its own
            "crc32": tfds.features.Scalar(np.int64),
        }
    )


def encode(case: Case, feature_dim: int, feature_dtype: str) -> dict[str, Any]:
    """The example of a case. An absent expression is empty."""
    features = [np.zeros((0, max(feature_dim, 1)), feature_dtype), *(slide.features for slide in case.slides)]
    coords = [np.zeros((0, 2), np.int32), *(slide.coords for slide in case.slides)]
    expression = np.zeros(0, np.float32) if case.expression is None else case.expression
    return {
        "case_id": case.id,
        "site": case.site,
        "split": case.split,
        "features": np.concatenate(features[1:] or features),
        "coords": np.concatenate(coords[1:] or coords).astype(np.int32),
        "slide_ids": [slide.id for slide in case.slides],
        "slide_lengths": np.array([len(slide.features) for slide in case.slides], np.int32),
        "patch_sizes_level0": np.array([slide.patch_size_level0 for slide in case.slides], np.int32),
        "expression": expression.astype(np.float32),
        **_plain(case.labels),
        "variables": json.dumps(dict(case.variables)),
        "crc32": checksum(case),
    }


def decode(example: Mapping[str, Any]) -> Case:
    """The case of an example; arrays are read-only views of the record.

    Raises:
      InputError: the checksum differs from the one written.
    """
    texts = {name: example[name].decode() for name in ("case_id", "site", "split", *_TEXTS)}
    starts = np.concatenate([[0], np.cumsum(example["slide_lengths"])])
    slides = tuple(
        Slide(
            id=slide_id.decode(),
            features=example["features"][start:end],
            coords=example["coords"][start:end],
            patch_size_level0=int(size),
        )
        for slide_id, start, end, size in zip(
            example["slide_ids"], starts[:-1], starts[1:], example["patch_sizes_level0"], strict=True
        )
    )
    labels: dict[str, Any] = {
        **{name: texts[name] for name in _TEXTS},
        **{name: int(example[name]) for name in _INTEGERS},
        **{name: float(example[name]) for name in _REALS},
    }
    expression = example["expression"] if example["expression"].size else None
    variables = json.loads(example["variables"])
    case = Case(
        texts["case_id"], texts["site"], texts["split"], slides, expression, Labels(**labels), variables
    )
    if checksum(case) != example["crc32"]:
        raise InputError(f"case {case.id}: its checksum differs from the one written; pack the records again")
    return case


def checksum(case: Case) -> int:
    """CRC-32 of everything in a case."""
    header = [
        *(case.id, case.site, case.split, _plain(case.labels), dict(case.variables)),
        [(slide.id, int(slide.patch_size_level0), len(slide.features)) for slide in case.slides],
    ]
    crc = zlib.crc32(json.dumps(header).encode())
    for slide in case.slides:
        crc = array_checksum(slide.features, crc)
        crc = array_checksum(slide.coords.astype(np.int32, copy=False), crc)
    if case.expression is not None:
        crc = array_checksum(case.expression.astype(np.float32, copy=False), crc)
    return crc


def array_checksum(array: np.ndarray, crc: int = 0) -> int:
    """CRC-32 of an array's bytes, continuing from `crc`."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)


def _plain(labels: Labels) -> dict[str, Any]:
    """Labels as built-in types, whatever number types a reader put there."""
    kinds = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_INTEGERS, int), **dict.fromkeys(_REALS, float)}
    return {name: kinds[name](value) for name, value in dataclasses.asdict(labels).items()}
