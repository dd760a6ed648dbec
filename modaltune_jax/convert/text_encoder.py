"""What conversions of text encoders share: the folder that they write, and the report on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from modaltune_jax.convert.report import Report, counts
from modaltune_jax.convert.tensor_file import sha256
from modaltune_jax.models.text.folder import TextFolder, write_folder


def write(
    folder: Path, stored: TextFolder, *, source: Path, what: str, num_tensors: int, skipped: Mapping[str, str]
) -> Report:
    """Writes a text encoder and says what was done.

    Args:
      folder: to write; an older text encoder in it is replaced.
      stored: the encoder.
      source: the file with its public weights; name and sha256 go into the folder.
      what: the model, in words with its sizes.
      num_tensors: tensors of the source.
      skipped: those that the encoder does not have, with the reason of each.

    Raises:
      InputError: `folder` holds something else.
    """
    digest = sha256(source)
    about = {**stored.source, "file": source.name, "sha256": digest}
    write_folder(folder, dataclasses.replace(stored, source=about))
    return Report(
        source=source,
        source_sha256=digest,
        target=folder,
        what=f"{what}; pooling {stored.pooling}, unit norm {'on' if stored.unit_norm else 'off'}",
        num_tensors=num_tensors,
        **counts(stored.params),
        sha256=stored.sha256,
        skipped=skipped,
    )
