"""Converted weights on disk: parameters by dotted path in a safetensors file whose header names them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import traverse_util

from modaltune_jax import __version__
from modaltune_jax.convert.rules import Params, Rename, flatten, naming, to_params
from modaltune_jax.convert.safetensors_writer import write_safetensors
from modaltune_jax.convert.tensor_file import TensorFile
from modaltune_jax.types import InputError

FORMAT = "modaltune_jax parameters 1"
"""In the header of every converted file."""

_SAME = (Rename("{path}", "{path}"),)


def write(path: Path, params: Params, *, kind: str, about: Mapping[str, str]) -> str:
    """Writes parameters atomically.

    Args:
      path: of the file.
      params: nested dict of contiguous numpy arrays.
      kind: what the parameters are of, e.g. "gigapath".
      about: further entries of the header, e.g. where the weights came from.

    Returns:
      The fingerprint of the parameters, which is in the header as "sha256".
    """
    digest = fingerprint(params)
    header = {"format": FORMAT, "version": __version__, "kind": kind, "sha256": digest, **about}
    write_safetensors(path, flatten(params), header)
    return digest


def is_converted(file: TensorFile) -> bool:
    """Whether `write` made the file.

    Raises:
      InputError: a later or earlier version of this package did, in a format that this one cannot read.
    """
    found = file.metadata.get("format", "")
    if found == FORMAT:
        return True
    if found.startswith(FORMAT.rstrip("0123456789")):
        raise InputError(
            f"{file.path} is in the format {found!r}, this version reads {FORMAT!r}: convert the "
            "weights again"
        )
    return False


def read(file: TensorFile, kind: str, abstract: Params | None = None) -> Params:
    """Parameters of a file that `write` made.

    Args:
      file: the open file.
      kind: what they must be of.
      abstract: nested dict of shapes and dtypes that they must have; None takes what there is.

    Raises:
      InputError: another kind, parameters that do not fit, or that are not those the header names.
    """
    if file.metadata["kind"] != kind:
        raise InputError(f"{file.path} holds {file.metadata['kind']} weights where {kind} is needed")
    if abstract is None:
        params = traverse_util.unflatten_dict({tuple(path.split(".")): file[path] for path in file})
    else:
        with naming(file.path):
            params = to_params(file, abstract, _SAME)
    found, named = fingerprint(params), file.metadata["sha256"]
    if found != named:
        raise InputError(
            f"{file.path} holds parameters with sha256 {found} where its header says {named}: it was changed "
            "or damaged; convert the weights again"
        )
    return params


def fingerprint(params: Params) -> str:
    """sha256 over names, dtypes, shapes and values of a nested dict of arrays."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        value = np.asarray(leaf)
        digest.update(f"{path} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
