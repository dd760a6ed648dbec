"""One page on a cohort: tiles a slide, classes by split, follow-up, and which case lacks what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.inspection.cohort_table import KNOWN, CohortTable
from modaltune_jax.inspection.slide_checks import SlideCheck
from modaltune_jax.inspection.tile_maps import save
from modaltune_jax.inspection.wording import plural, shortened

# Okabe and Ito 2008.
_SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}
_DIED, _CENSORED = "#D55E00", "#9AA5B1"
_HAS, _LACKS = "#3B6E8F", "#F1E3D3"
_GREY = "#444444"
_SITE_WIDTH, _CLASS_WIDTH, _ROW_WIDTH = 16, 28, 70
"""Letters for which there is room: of a site and a class beside a bar, of all sites below an axis."""
_FAR = 3.0
"""Times beyond this many times the 95th percentile would press all others into one bar."""


def draw_cohort(table: CohortTable | None, checks: Sequence[SlideCheck], path: Path) -> None:
    """Writes the page as PNG; without a table of cases it shows the slides alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if table is None or table.cases.empty:
        figure, axis = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
        _tiles(axis, checks)
    else:
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15)
        figure, axes = plt.subplots(2, 2, figsize=(14.0, 9.0), layout=layout)
        for axis, draw in zip(axes.flat, (_classes, _follow_up, _missing), strict=False):
            draw(axis, table)
        _tiles(axes[1, 1], checks)
        num_slides = int(table.cases["num_slides"].sum())
        figure.suptitle(f"{plural(len(table.cases), 'case')}, {plural(num_slides, 'slide')}")
    save(figure, path)


def _tiles(axis: Any, checks: Sequence[SlideCheck]) -> None:
    lengths = np.array([check.num_tiles for check in checks if check.num_tiles], int)
    axis.set_title(f"tiles of {plural(len(lengths), 'slide')}", loc="left")
    if len(lengths):
        # Between whole numbers, so that small ones do not leave gaps.
        num_bins = int(np.clip(2 * np.sqrt(len(lengths)), 8, 32))
        edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, num_bins + 1).round()) - 0.5
        axis.hist(lengths, bins=edges, color=_SPLIT_COLOURS["train"], edgecolor="white", linewidth=0.6)
        median = np.median(lengths)
        axis.axvline(median, color="black", linewidth=1.0, linestyle="--")
        words = f" median {median:,.0f}, longest {lengths.max():,} "
        side = "right" if median**2 > lengths.min() * lengths.max() else "left"
        place = {"transform": axis.get_xaxis_transform(), "va": "top", "ha": side}
        axis.text(median, 0.97, words, fontsize=9, **place)
        axis.margins(y=0.12)
    axis.set(xscale="log", xlabel="tiles", ylabel="slides")
    _count_in_whole_numbers(axis.yaxis)
    _label_plainly(axis, lengths)
    _open(axis)


def _label_plainly(axis: Any, lengths: np.ndarray) -> None:
    """100 and 1,000 instead of powers of ten, and no crowd of small labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    is_narrow = len(lengths) > 0 and lengths.max() < 30 * lengths.min()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_narrow else (1,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _classes(axis: Any, table: CohortTable) -> None:
    cases, splits = table.cases, _splits(table)
    names = [(spec.name, i, name) for spec in table.specs for i, name in enumerate(spec.classes)]
    names += [
        (spec.name, -1, "no class")
        for spec in table.specs
        if ((cases["site"] == spec.name) & (cases["subtype"] < 0)).any()
    ]
    names.sort(key=lambda row: [spec.name for spec in table.specs].index(row[0]))
    places = np.arange(len(names))
    left = np.zeros(len(names))
    for split in splits:
        is_split = cases["split"] == split
        counts = np.array(
            [(is_split & (cases["site"] == site) & (cases["subtype"] == i)).sum() for site, i, _ in names]
        )
        colour = _SPLIT_COLOURS.get(split, _CENSORED)
        axis.barh(places, counts, left=left, color=colour, label=split or "no split", height=0.75)
        left += counts
    for place, total in zip(places, left, strict=True):
        axis.text(total, place, f" {total:,.0f}", va="center", fontsize=8, color=_GREY)
    axis.set_yticks(places, [_row_name(site, name) for site, _, name in names], fontsize=8)
    axis.invert_yaxis()
    axis.set_title("classes by split", loc="left")
    axis.set(xlabel="cases")
    _count_in_whole_numbers(axis.xaxis)
    # Above the bars, beside the title, where it hides none.
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
    _open(axis)


def _follow_up(axis: Any, table: CohortTable) -> None:
    known = table.cases[table.cases["survival"].astype(bool)]
    time, died = known["time"].to_numpy(float), known["event"].to_numpy(int) == 1
    title = f"follow-up: {plural(int(died.sum()), 'death')} in {plural(len(known), 'case')}"
    if len(known):
        far = _FAR * float(np.quantile(time, 0.95))
        is_far = time > far if far > 0 else np.zeros(len(time), bool)
        if is_far.any():
            title += f"; {is_far.sum():,} beyond, to {time.max():,.0f} months"
            time, died = time[~is_far], died[~is_far]
        edges = np.linspace(0.0, max(time.max(), 1.0), 41)
        axis.hist(
            [time[died], time[~died]],
            bins=edges,
            stacked=True,
            color=[_DIED, _CENSORED],
            label=["died", "censored"],
            edgecolor="white",
            linewidth=0.4,
        )
        axis.legend(frameon=False)
    axis.set_title(title, loc="left")
    axis.set(xlabel="months", ylabel="cases")
    _count_in_whole_numbers(axis.yaxis)
    _open(axis)


def _missing(axis: Any, table: CohortTable) -> None:
    """A row a modality, a column a case, by site; cases that lack the same stand together."""
    from matplotlib.colors import ListedColormap

    order = {spec.name: i for i, spec in enumerate(table.specs)}
    has = table.cases[list(KNOWN)].to_numpy(bool)
    site = table.cases["site"].map(order).to_numpy(int)
    rows = np.lexsort((*(~has[:, ::-1].T), site))
    axis.imshow(
        has[rows].T,
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap([_LACKS, _HAS]),
        vmin=0,
        vmax=1,
    )
    shares = [f"{name}  {100 * column.mean():.0f} %" for name, column in zip(KNOWN, has.T, strict=True)]
    axis.set_yticks(np.arange(len(KNOWN)), shares if len(has) else KNOWN)
    ends = np.cumsum(np.bincount(site, minlength=len(order)))
    for end in ends[:-1]:
        axis.axvline(end - 0.5, color="white", linewidth=2.5)
    for edge in np.arange(len(KNOWN) - 1) + 0.5:
        axis.axhline(edge, color="white", linewidth=2.5)
    starts = np.concatenate([[0], ends[:-1]])
    names = [name for name, start, end in zip(order, starts, ends, strict=True) if end > start]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True) if end > start]
    if sum(map(len, names)) > _ROW_WIDTH:
        names = [shortened(name, max(_ROW_WIDTH // len(names), 6)) for name in names]
    axis.set_xticks(middles, names)
    axis.tick_params(length=0)
    axis.set_title("what cases have (dark) and lack (light)", loc="left")
    for side in axis.spines.values():
        side.set_visible(False)


def _row_name(site: str, name: str) -> str:
    return f"{shortened(site, _SITE_WIDTH)}  {shortened(name, _CLASS_WIDTH)}"


def _count_in_whole_numbers(axis: Any) -> None:
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _splits(table: CohortTable) -> list[str]:
    there = set(table.cases["split"])
    return [split for split in _SPLIT_COLOURS if split in there] + sorted(there - set(_SPLIT_COLOURS))


def _open(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
