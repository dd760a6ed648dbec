"""ModalTune's public code: `<slide>_featvec.pt`, `torch.save({"features": ..., "coords": ...})`.

`features` float32 [n, 1536] and `coords` int64 [n, 2], corners (x, y) in level-0 pixels, which
`--coords-unit` overrules. The side of a tile is said nowhere. Read without torch; no file can run code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import Said, TileArrays, assemble
from modaltune_jax.types import Slide

NAME = "modaltune_pt"
SUFFIXES = (".pt",)

_ENDING = "_featvec"


def peek(path: Path) -> Contents:
    """Names of the tensors of any torch file; one that holds a tensor alone calls it "features".

    Raises:
      InputError: no torch file, or one with anything but tensors.
    """
    with open_tensors(path, bare="features") as tensors:
        return Contents("torch", frozenset(tensors))


def fits(contents: Contents) -> bool:
    """Whether a file is of this layout."""
    return contents.kind == "torch" and {"features", "coords"} <= contents.arrays


def locate(paths: Sequence[Path]) -> list[SlideFile]:
    """The slides of these files."""
    return [SlideFile(path.stem.removesuffix(_ENDING), NAME, path) for path in paths]


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the file, or that the options say too little.
    """
    with open_tensors(file.path, bare="features") as tensors:
        arrays = TileArrays(tensors.get("features"), tensors.get("coords"), {})
    return assemble(file, arrays, Said(coords_unit=options.coords_unit or "level0"), options)
