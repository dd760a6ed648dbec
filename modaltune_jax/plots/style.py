"""What figures share: colours for the colour-blind, lines and markers for print, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito 2008."""
HATCHES = ("", "////", "....", "xxxx")
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 2.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""As many as there are neither colours nor dashes, so that the pairs repeat late."""
GREY = "#555555"
_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of line i: either alone tells the first lines apart."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.6}


def marker_style(i: int) -> dict[str, Any]:
    """Colour and marker of series i: either alone tells the first series apart."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "markeredgecolor": "black",
        "markeredgewidth": 0.5,
    }


def subplots(rows: int, columns: int, *, width: float, height: float, **kwargs: Any) -> Any:
    """Figure and axes, in inches, drawn without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height), **{"layout": "constrained", **kwargs})


def unit_square(xlabel: str, ylabel: str, title: str) -> Any:
    """Figure and axis of two rates from 0 to 1, with the diagonal; a legend beside it may be of any size."""
    figure, axis = subplots(1, 1, width=4.8, height=4.6, layout=None)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (1, 3)))
    axis.set(xlabel=xlabel, ylabel=ylabel, aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set(xticks=_FIFTHS, yticks=_FIFTHS)
    axis.set_title(title, loc="left")
    open_frame(axis)
    return figure, axis


def open_frame(axis: Any) -> None:
    """Leaves the axes that are read off."""
    axis.spines[["top", "right"]].set_visible(False)


def legend_beside(axis: Any) -> None:
    """To the right of the panel, where it hides nothing."""
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def save(figure: Any, path: Path, *, is_trimmed: bool = False) -> None:
    """Writes a figure, whole or not at all, in the format of its suffix, and closes it.

    Args:
      figure: of matplotlib.
      path: of the PNG, PDF or SVG.
      is_trimmed: the page is as large as what is drawn, be it less or more than the figure.
    """
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".tmp{path.suffix}")
    figure.savefig(temporary, dpi=130, bbox_inches="tight" if is_trimmed else None)
    plt.close(figure)
    os.replace(temporary, path)
