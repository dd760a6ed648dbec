"""What a file holds, by name: enough to tell its layout, and cheap to find out."""

from __future__ import annotations

from typing import NamedTuple


class Contents(NamedTuple):
    """Names in a file.

    Attributes:
      kind: "hdf5", "torch", "numpy" or "zarr".
      arrays: names of the arrays at the top; a torch file or `.npy` with a single one calls it "features".
      attributes: names of all attributes of the file and of the arrays at its top.
    """

    kind: str
    arrays: frozenset[str]
    attributes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"the arrays {sorted(self.arrays)}" + (
            f" with the attributes {sorted(self.attributes)}" if self.attributes else ""
        )
