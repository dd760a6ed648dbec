"""What a slide's tiles tell about themselves: their grid, broken rows, and whether the units can be right."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import xxhash
from jaxtyping import Bool, Float, Int

from modaltune_jax.inputs.bags import grid_cells
from modaltune_jax.inputs.readers.slide_file import SlideFacts
from modaltune_jax.types import Slide

NUM_POSITIONS = 1000
"""Prov-GigaPath has a position for each cell of a grid of 1000 x 1000 (Xu et al. 2024)."""

_TOLERATED = 0.01
"""Share of tiles that may share a cell or lie off the grid before it is worth a warning."""
_ROUNDING = 1
"""Pixels by which coordinates may be off because they were rounded."""
_ROWS = 8192
"""Rows looked at in one go, so that a check needs little memory beside the features."""


class Finding(NamedTuple):
    """Something about a slide that a person should know.

    Attributes:
      kind: a stable word for it.
      severity: "bad", the slide cannot be used, or "warning".
      message: a sentence with numbers.
    """

    kind: str
    severity: str
    message: str


@dataclasses.dataclass(frozen=True)
class SlideCheck:
    """Facts and findings of one slide; numbers are None where it could not be read.

    Attributes:
      slide_id, case_id: `case_id` is `""` if not known.
      path, layout: where it was read, and by which reader.
      num_tiles, width, dtype: of the features.
      patch_size_level0: side of a tile in level-0 pixels.
      spacing: pixels between neighbouring tiles, None without neighbours or if they are irregular.
      num_cells: grid cells with at least one tile.
      num_shared: tiles that share their cell with another tile.
      num_off_grid: tiles that are not whole tiles away from the first.
      num_negative, num_beyond: tiles before cell 0 and from cell 1000 on: there Prov-GigaPath has no
        position.
      num_not_finite, num_zero, num_duplicate: tiles with a NaN or infinite feature; with zeros only; with
        exactly the features of an earlier tile, zeros not counted.
      encoder, mpp, magnification, frame, tile_size: as in `SlideFacts`.
      findings: worst first.
    """

    slide_id: str
    case_id: str = ""
    path: str = ""
    layout: str = ""
    num_tiles: int | None = None
    width: int | None = None
    dtype: str = ""
    patch_size_level0: int | None = None
    spacing: int | None = None
    num_cells: int | None = None
    num_shared: int | None = None
    num_off_grid: int | None = None
    num_negative: int | None = None
    num_beyond: int | None = None
    num_not_finite: int | None = None
    num_zero: int | None = None
    num_duplicate: int | None = None
    encoder: str = ""
    mpp: float | None = None
    magnification: float | None = None
    frame: str = ""
    tile_size: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        """ "bad", "warning" or "ok"."""
        return self.findings[0].severity if self.findings else "ok"


def check_slide(
    slide: Slide, facts: SlideFacts, *, case_id: str = "", path: str = "", layout: str = ""
) -> SlideCheck:
    """Looks at every tile of a slide.

    Args:
      slide: as a reader returns it.
      facts: what its file says besides.
      case_id, path, layout: of the result.
    """
    grid = _look_at_grid(slide)
    rows = _look_at_rows(slide.features)
    check = SlideCheck(
        slide_id=slide.id,
        case_id=case_id,
        path=path,
        layout=layout,
        num_tiles=len(slide.features),
        width=slide.features.shape[1],
        dtype=slide.features.dtype.name,
        patch_size_level0=slide.patch_size_level0,
        **facts._asdict(),
        **grid,
        **rows,
    )
    findings = [*_row_findings(check), *_grid_findings(check)]
    return dataclasses.replace(check, findings=tuple(sorted(findings, key=lambda f: f.severity)))


def unreadable(
    slide_id: str, reason: str, *, case_id: str = "", path: str = "", layout: str = ""
) -> SlideCheck:
    """The check of a slide that could not be read."""
    findings = (Finding("unreadable", "bad", reason),)
    return SlideCheck(slide_id, case_id, path, layout, findings=findings)


def spacing(coords: Int[np.ndarray, "l 2"]) -> int | None:
    """Pixels between neighbouring tiles of one row or column: the most common distance.

    None if no two tiles share a row or column, or if fewer than half of the distances are that one.

    >>> spacing(np.array([[0, 0], [512, 0], [1024, 0], [2048, 0]]))
    512
    """
    distances = np.concatenate([_distances(coords, along=0), _distances(coords, along=1)])
    if not len(distances):
        return None
    values, counts = np.unique(distances, return_counts=True)
    common = int(values[np.argmax(counts)])
    is_near = np.abs(distances - common) <= _ROUNDING
    return common if is_near.mean() >= 0.5 else None


def _distances(coords: Int[np.ndarray, "l 2"], along: int) -> Int[np.ndarray, "n"]:
    """From each tile to the next one in its row (along 0) or column (along 1)."""
    place, line = coords[:, along].astype(np.int64), coords[:, 1 - along]
    order = np.lexsort((place, line))
    steps = np.diff(place[order])[np.diff(line[order]) == 0]
    return steps[steps > 0]


def _look_at_grid(slide: Slide) -> dict[str, Any]:
    cells = grid_cells(slide).astype(np.int64)
    _, counts = np.unique(cells[:, 0] * 2**32 + cells[:, 1], return_counts=True)
    size = slide.patch_size_level0
    # From the first tile, so that a grid that does not begin at pixel (0, 0) is a grid too.
    offset = (slide.coords.astype(np.int64) - slide.coords[:1]) % size
    is_off = (np.minimum(offset, size - offset) > _ROUNDING).any(axis=1)
    return {
        "spacing": spacing(slide.coords),
        "num_cells": len(counts),
        "num_shared": int(counts[counts > 1].sum()),
        "num_off_grid": int(is_off.sum()),
        "num_negative": int((cells < 0).any(axis=1).sum()),
        "num_beyond": int((cells >= NUM_POSITIONS).any(axis=1).sum()),
    }


def _look_at_rows(features: Float[np.ndarray, "l d"]) -> dict[str, Any]:
    parts = [features[start : start + _ROWS] for start in range(0, len(features), _ROWS)]
    not_finite = sum(int((~is_finite_row(part)).sum()) for part in parts)
    hashes: list[int] = []
    num_zero = 0
    for part in parts:
        is_zero = ~(part != 0).any(axis=1)
        num_zero += int(is_zero.sum())
        hashes += [xxhash.xxh3_64_intdigest(row.tobytes()) for row in part[~is_zero]]
    return {
        "num_not_finite": not_finite,
        "num_zero": num_zero,
        "num_duplicate": len(hashes) - len(set(hashes)),
    }


def is_finite_row(features: Float[np.ndarray, "l d"]) -> Bool[np.ndarray, "l"]:
    """Which tiles have neither NaN nor infinity."""
    return np.isfinite(features).all(axis=1)


def _row_findings(check: SlideCheck) -> list[Finding]:
    total = check.num_tiles or 0
    if not total:
        return [Finding("no-tiles", "warning", "it has no tiles: was any tissue found?")]
    findings = []
    if check.num_not_finite:
        findings.append(
            Finding(
                "not-finite",
                "bad",
                f"{_tiles(check.num_not_finite, total)} NaN or infinite features; extract the slide again",
            )
        )
    if check.num_zero:
        findings.append(
            Finding("zero-rows", "warning", f"{_tiles(check.num_zero, total)} features that are all zero")
        )
    if check.num_duplicate:
        what = f"{_tiles(check.num_duplicate, total)} exactly the features of another tile"
        message = f"{what}: blank tiles, or a file that was appended to"
        findings.append(Finding("duplicate-rows", "warning", message))
    return findings


def _grid_findings(check: SlideCheck) -> list[Finding]:
    total = check.num_tiles or 0
    size, step, shared = check.patch_size_level0 or 0, check.spacing, check.num_shared or 0
    findings = []
    is_spacing_wrong = False
    if step is not None and abs(step - size) > max(_ROUNDING, _TOLERATED * size):
        is_spacing_wrong = True
        kind = "gaps" if step > size else "overlap"
        findings.append(Finding(kind, "warning", _spacing_message(step, size, shared, total)))
    elif shared > _TOLERATED * total:
        what = f"{_tiles(shared, total)} a grid cell that another tile has too"
        findings.append(Finding("shared-cells", "warning", f"{what}, of {size} px"))
    if (check.num_off_grid or 0) > _TOLERATED * total and not is_spacing_wrong:
        message = (
            f"{_percent(check.num_off_grid, total)} of the tiles lie off the grid of the first tile: each"
            " piece of tissue has a grid of its own, or the patch size is wrong"
        )
        findings.append(Finding("off-grid", "warning", message))
    if check.num_negative:
        message = f"{_tiles(check.num_negative, total)} negative coordinates, where there is no position"
        findings.append(Finding("negative", "warning", message))
    if check.num_beyond:
        message = (
            f"{_percent(check.num_beyond, total)} of the tiles lie beyond cell {NUM_POSITIONS - 1}, the last"
            f" of Prov-GigaPath's grid; is a tile really {size} px wide at level 0?"
        )
        findings.append(Finding("beyond", "warning", message))
    return findings


def _spacing_message(step: int, size: int, shared: int, total: int) -> str:
    what = f"tiles are {step} px apart but the patch size is {size} px"
    if step > size:
        return (
            f"{what}: one grid cell in {_number((step / size) ** 2)} is used; is --patch-size-level0 {step}?"
        )
    return (
        f"{what}: {_percent(shared, total)} of them share a cell;"
        f" they overlap, or --patch-size-level0 is {step}"
    )


def _tiles(count: int | None, total: int) -> str:
    return f"{count} of {total} tiles {'has' if count == 1 else 'have'}"


def _percent(count: int | None, total: int) -> str:
    return f"{_number(100 * (count or 0) / total)} %"


def _number(value: float) -> str:
    """Whole where it is, or is large; else one decimal, rounded up so that little is not none."""
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{math.ceil(value * 10) / 10:g}"
