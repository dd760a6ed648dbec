"""Slides of one data set must come from one tile encoder: which it is, and which slides differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from modaltune_jax.packing.packed_case import PackedSlide, TileLayout


class CommonLayout(NamedTuple):
    """What most slides have.

    Attributes:
      tiles: width and dtype; 0 and float16 if no slide has tiles.
      encoder: name, `""` if no slide says it.
      num_slides: slides with these tiles.
      num_all: slides with tiles.
    """

    tiles: TileLayout
    encoder: str
    num_slides: int
    num_all: int

    def misfit(self, slide: PackedSlide) -> str:
        """Why a slide does not fit, `""` if it does; slides that do not say their encoder may."""
        if slide.tile_layout not in (None, self.tiles):
            return (
                f"{slide.path}: features are {slide.tile_layout}, but {self.num_slides} of"
                f" {self.num_all} slides have {self.tiles}; extract all slides with one tile encoder, or"
                " pack them apart"
            )
        if slide.encoder and slide.encoder != self.encoder:
            return (
                f"{slide.path}: features are of the encoder {slide.encoder!r}, but most slides have"
                f" {self.encoder!r}; extract all slides with one tile encoder, or pack them apart"
            )
        return ""


def common_layout(slides: Iterable[PackedSlide]) -> CommonLayout:
    """The layout, and within it the encoder, of most slides; where two are even, that of most tiles."""
    slides = [slide for slide in slides if slide.num_tiles]
    if not slides:
        return CommonLayout(TileLayout(0, "float16"), "", 0, 0)
    tiles = TileLayout(*_most((TileLayout(slide.width, slide.dtype), slide.num_tiles) for slide in slides))
    fitting = [slide for slide in slides if slide.tile_layout == tiles]
    named = [(slide.encoder, slide.num_tiles) for slide in fitting if slide.encoder]
    return CommonLayout(tiles, _most(named) if named else "", len(fitting), len(slides))


def _most(votes: Iterable[tuple[Any, int]]) -> Any:
    """The choice of most votes, then of the greatest weight, then the first in order."""
    number: Counter[Any] = Counter()
    weight: Counter[Any] = Counter()
    for choice, tiles in votes:
        number[choice] += 1
        weight[choice] += tiles
    return min(number, key=lambda choice: (-number[choice], -weight[choice], choice))
