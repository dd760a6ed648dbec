"""What a conversion did, for people to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import jax

from modaltune_jax.convert.rules import Params


class Counts(TypedDict):
    """How much there is of parameters."""

    num_parameters: int
    num_bytes: int


def counts(params: Params) -> Counts:
    """What a `Report` says of parameters besides their hash."""
    leaves = jax.tree.leaves(params)
    return Counts(
        num_parameters=sum(leaf.size for leaf in leaves), num_bytes=sum(leaf.nbytes for leaf in leaves)
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """One conversion.

    Attributes:
      source: the file that was read.
      source_sha256: of its bytes.
      target: the file or folder that was written.
      what: the model, in words with its sizes.
      num_tensors: tensors that were read.
      num_parameters: numbers in the parameters that were written.
      num_bytes: of those parameters.
      sha256: of those parameters; checkpoints name an encoder by it.
      skipped: tensors that the model does not have, with the reason of each.
      notes: what the user should know besides.
    """

    source: Path
    source_sha256: str
    target: Path
    what: str
    num_tensors: int
    num_parameters: int
    num_bytes: int
    sha256: str
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = sorted(set(self.skipped.values()))
        counts = [f"{sum(why == reason for why in self.skipped.values())} {reason}" for reason in reasons]
        left_out = f", left out: {', '.join(counts)}" if counts else ""
        rows = (
            ("from", f"{self.source} (sha256 {self.source_sha256})"),
            ("model", self.what),
            ("read", f"{self.num_tensors} tensors{left_out}"),
            ("wrote", f"{self.num_parameters:,} parameters, {self.num_bytes / 2**20:,.1f} MiB"),
            ("to", f"{self.target} (parameters' sha256 {self.sha256})"),
            *(("note", note) for note in self.notes),
        )
        return "\n".join(f"{name:>6}  {text}" for name, text in rows)
