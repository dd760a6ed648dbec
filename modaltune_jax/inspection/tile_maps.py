"""Contact sheets: the tiles of slides on their grid, so that wrong units and lost tissue are seen."""

from __future__ import annotations

import functools
import math
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.inspection.inspection import Looked
from modaltune_jax.inspection.slide_checks import SlideCheck
from modaltune_jax.inspection.slide_runs import map_slides
from modaltune_jax.inspection.slide_sources import Entry, SlideSource
from modaltune_jax.inspection.tile_rasters import (
    Direction,
    TileRaster,
    draw_raster,
    fit_direction,
    sample_tiles,
)

COLUMNS, ROWS = 6, 4
PER_PAGE = COLUMNS * ROWS
MAX_PAGES = 4

_SAMPLED_SLIDES, _SAMPLED_TILES = 48, 64
_TITLE_COLOURS = {"ok": "#222222", "warning": "#B35900", "bad": "#B2182B"}
_SHARED, _BROKEN = "#D55E00", "#E7298A"
_LEGEND = (
    "Colour: first principal component of the tile features, one scale on all pages.  White: no tile.  "
    "Orange: several tiles in one cell.  Pink: NaN or infinite features."
)


def draw_tile_maps(
    slides: Sequence[Looked],
    source: SlideSource,
    folder: Path,
    *,
    note: str = "",
    workers: int | None = None,
    progress: bool = False,
) -> list[Path]:
    """Draws up to `MAX_PAGES` pages of `PER_PAGE` slides.

    Args:
      slides: worst first; what could not be read gets a panel that says why. If they do not all fit, those
        that are ok are drawn evenly spaced.
      source: to read them from again.
      folder: gets tile_maps_1.png, tile_maps_2.png, ...
      note: a sentence below every page.
      workers, progress: as of `map_slides`.

    Returns:
      The files written.
    """
    slides = _choose(slides)
    readable = [slide for slide in slides if slide.check.num_tiles]
    # Features of another width are of another encoder: they have a direction of their own.
    directions = {
        width: _fit(source, [slide.entry for slide in readable if slide.check.width == width], workers)
        for width in Counter(slide.check.width for slide in readable)
    }
    rasters = iter(
        map_slides(
            functools.partial(_draw, source.read),
            [(slide.entry, directions[slide.check.width]) for slide in readable],
            workers=workers,
            description="drawing",
            progress=progress,
        )
    )
    panels = [(slide.check, next(rasters) if slide.check.num_tiles else None) for slide in slides]
    pages = [panels[start : start + PER_PAGE] for start in range(0, len(panels), PER_PAGE)]
    paths = [folder / f"tile_maps_{number}.png" for number in range(1, len(pages) + 1)]
    for number, (path, page) in enumerate(zip(paths, pages, strict=True), start=1):
        _draw_page(page, f"{note}  (page {number} of {len(pages)})".strip(), path)
    return paths


def _choose(slides: Sequence[Looked]) -> list[Looked]:
    noticed = [slide for slide in slides if slide.check.verdict != "ok"][: MAX_PAGES * PER_PAGE]
    others = [slide for slide in slides if slide.check.verdict == "ok"]
    count = min(MAX_PAGES * PER_PAGE - len(noticed), len(others))
    return noticed + [others[int(i)] for i in np.linspace(0, len(others) - 1, count)]


def _fit(source: SlideSource, entries: Sequence[Entry], workers: int | None) -> Direction:
    """On a few tiles of a few slides, evenly spaced."""
    chosen = entries[:: -(-len(entries) // _SAMPLED_SLIDES)]
    samples = map_slides(functools.partial(_sample, source.read), chosen, workers=workers)
    tiles = np.concatenate(samples)
    # Where all tiles are broken, any direction will do.
    return fit_direction(tiles if len(tiles) else np.zeros((1, tiles.shape[1]), np.float32))


def _sample(read: Callable[[Any], Any], entry: Entry) -> np.ndarray:
    return sample_tiles(read(entry.key)[0], _SAMPLED_TILES)


def _draw(read: Callable[[Any], Any], job: tuple[Entry, Direction]) -> TileRaster:
    entry, direction = job
    return draw_raster(read(entry.key)[0], direction)


def _draw_page(page: Sequence[tuple[SlideCheck, TileRaster | None]], note: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = math.ceil(len(page) / COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    size = (16.5, 2.9 * rows + 0.5)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=size, layout=layout, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (check, raster) in zip(axes.flat, page, strict=False):
        _title(axis, check)
        if raster is None:
            message = check.findings[0].message.replace(check.path, Path(check.path).name)
            text = textwrap.fill(textwrap.shorten(message, 220), 32)
            axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color="#555555")
        else:
            _draw_panel(axis, check, raster)
    figure.supxlabel(f"{_LEGEND}  {note}", fontsize=9, color="#444444")
    save(figure, path)


def _title(axis: Any, check: SlideCheck) -> None:
    kinds = ", ".join(finding.kind for finding in check.findings[:2])
    tiles = "" if check.num_tiles is None else f"{check.num_tiles:,} tiles"
    second = "  ·  ".join(part for part in (tiles, kinds) if part)
    name = check.slide_id if len(check.slide_id) <= 30 else f"{check.slide_id[:21]}..{check.slide_id[-7:]}"
    axis.set_title(f"{name}\n{second}", fontsize=9, color=_TITLE_COLOURS[check.verdict], linespacing=1.3)


def _draw_panel(axis: Any, check: SlideCheck, raster: TileRaster) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    image = colormaps["viridis"](np.nan_to_num(raster.values))[..., :3]
    image[np.isnan(raster.values)] = 1.0
    image[raster.is_shared] = to_rgb(_SHARED)
    image[raster.is_broken] = to_rgb(_BROKEN)
    axis.imshow(image, interpolation="nearest")
    rows, columns = raster.values.shape
    side = max(rows, columns)
    # A square panel with the tissue in its middle and room for the bar below.
    axis.set_xlim(columns / 2 - side * 0.55 - 0.5, columns / 2 + side * 0.55 - 0.5)
    axis.set_ylim(rows / 2 + side * 0.62 - 0.5, rows / 2 - side * 0.52 - 0.5)
    _scale_bar(axis, check, raster)


def _scale_bar(axis: Any, check: SlideCheck, raster: TileRaster) -> None:
    """A fifth to a third of the panel: in mm where the size of a pixel is known, else in tiles."""
    rows, columns = raster.values.shape
    side = max(rows, columns)
    unit, per_pixel = "tiles", float(raster.cells_per_pixel)
    if check.mpp is not None and check.frame == "level0" and check.patch_size_level0:
        unit, per_pixel = "mm", per_pixel * check.patch_size_level0 * check.mpp / 1000
    length = _round_below(side * per_pixel / 3)
    if unit == "tiles":
        length = max(1.0, length)
    left, below = columns / 2 - side * 0.5 - 0.5, rows / 2 + side * 0.58 - 0.5
    axis.plot(
        [left, left + length / per_pixel], [below, below], color="#222222", linewidth=2, solid_capstyle="butt"
    )
    words = f"{length:g} {unit}" if length != 1 or unit == "mm" else "1 tile"
    axis.text(
        left + length / per_pixel + side * 0.02, below, words, fontsize=7.5, va="center", color="#222222"
    )


def _round_below(length: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= length * (1 + 1e-9))


def save(figure: Any, path: Path) -> None:
    """Writes a figure, whole or not at all, and closes it."""
    from matplotlib import pyplot as plt

    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=130, facecolor="white")
    plt.close(figure)
    os.replace(temporary, path)
