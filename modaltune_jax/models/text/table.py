"""Text vectors computed elsewhere, as by a gated encoder on another machine."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from modaltune_jax.types import InputError


class TableEncoder:
    """Looks sentences up in a file.

    Attributes:
      dim: width of the vectors.
      fingerprint: sha256 of the file.
    """

    def __init__(self, path: str | Path):
        """Reads a table of one vector per sentence.

        Args:
          path: `.npz` with arrays "sentences" `[n]` (strings) and "vectors" `[n, d]`, or `.parquet` with
            columns "sentence" and "vector" (a list of numbers).

        Raises:
          InputError: another layout, a sentence twice, or vectors that are not finite.
        """
        self._path = Path(path)
        sentences, vectors = _read(self._path)
        if vectors.ndim != 2 or len(sentences) != len(vectors):
            raise InputError(f"{path}: {len(sentences)} sentences for vectors of shape {vectors.shape}")
        rows = {sentence: row for row, sentence in enumerate(sentences)}
        if len(rows) < len(sentences):
            twice = next(s for row, s in enumerate(sentences) if rows[s] != row)
            raise InputError(f"{path}: sentence {twice!r} is there twice: keep one vector per sentence")
        if not np.isfinite(vectors).all():
            row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            raise InputError(f"{path}: the vector of {sentences[row]!r} is not finite")
        self._rows, self._vectors = rows, vectors
        self.dim: int = vectors.shape[1]
        self.fingerprint = hashlib.sha256(self._path.read_bytes()).hexdigest()

    def encode(self, sentences: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Vectors of sentences.

        Raises:
          InputError: sentences that the table lacks.
        """
        missing = list(dict.fromkeys(sentence for sentence in sentences if sentence not in self._rows))
        if missing:
            others = f" nor for {len(missing) - 1} others" if len(missing) > 1 else ""
            raise InputError(
                f"{self._path} has no vector for sentence {missing[0]!r}{others}: add what is missing "
                "to the table"
            )
        return self._vectors[[self._rows[sentence] for sentence in sentences]]


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} is missing: no such table of text vectors")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return arrays["sentences"].tolist(), arrays["vectors"].astype(np.float32)
        import pandas as pd

        frame = pd.read_parquet(path, columns=["sentence", "vector"])
        return frame["sentence"].tolist(), np.array(frame["vector"].tolist(), np.float32)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no table of text vectors: {error}") from error
