"""Expression that was prepared with knowledge of the label or of the test cases."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from modaltune_jax.inputs.counts import some
from modaltune_jax.inspection.leaks.leak import Leak
from modaltune_jax.inspection.leaks.separation import FEWEST, auroc

_PLURAL = {"project": "projects", "class": "classes"}
_FEWEST_GENES = 20
_MOST_GENES = 2000
_CENTRED = 0.1
_EXACT = 1e-3
"""What is left of a mean of 0 and a standard deviation of 1 after rounding to float16."""
_SEPARATED = 0.99
_ROUNDED_TO = 6
"""Decimals beyond which rounding is not looked for."""


class _Group(NamedTuple):
    """The cases of one project or class of a site."""

    name: str
    site: str
    rows: Bool[np.ndarray, "b"]


def expression_leaks(expression: pd.DataFrame, cases: pd.DataFrame) -> list[Leak]:
    """What the expression table says about where its rows come from.

    - Standardised or centred by project or class, though a new case's class is not known. In a group of n of
      N cases, n mean² / variance of a gene is 1 - n/N on average if groups were standardised together and do
      not even differ, and more if they do. Flagged if the average over genes is below a tenth of that in two
      groups: with as few as 5 independent directions among the genes, chance does so in 1 % of groups. Not
      found where more than about a twentieth of the cases that were standardised together are missing here.
    - Units that differ: one number of a case (median, spread, share of zeros, share missing, decimals) tells
      two groups apart at AUROC 0.99, and by more than tissues differ.
    - Genes measured in one group and never in another.
    - Standardised on all cases, test included: mean 0 and standard deviation 1 to three decimals over all
      cases and not over train. A warning, as it tells little; not found after dropping or adding cases.

    Groups are all projects, and the classes of a site where they are not its projects. Groups of fewer than
    10 cases are not judged, nor the means of fewer than 20 genes. Of many genes 2 000, evenly spaced, are
    judged, but all by whether they were measured.

    Args:
      expression: case x gene, NaN where not measured.
      cases: indexed by case id, with columns site, subtype, split, and project where it is known.
    """
    ids = [id for id in expression.index if id in cases.index]
    cases = cases.loc[ids]
    table = expression.loc[ids].to_numpy(np.float32)
    is_measured = np.isfinite(table)
    genes = np.flatnonzero(is_measured.any(axis=0))
    values = table[:, genes[:: len(genes) // _MOST_GENES + 1]].astype(np.float64)
    if not values.size:
        return []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|Degrees of freedom|All-NaN", RuntimeWarning)
        found = list(_pooled_leaks(values, (cases["split"] == "train").to_numpy()))
        for by, groups in _groupings(cases):
            found += [*_centred_leaks(values, groups, by), *_unit_leaks(values, groups, by)]
            found += _gene_leaks(is_measured, groups, by)
    return found


def _groupings(cases: pd.DataFrame) -> Iterator[tuple[str, list[_Group]]]:
    site = cases["site"].to_numpy(str)
    project = cases["project"].to_numpy(str) if "project" in cases else site
    project = np.where(project == "", site, project)
    subtype = cases["subtype"].to_numpy(int)
    yield "project", _groups(project, site)
    for name in np.unique(site):
        is_here = (site == name) & (subtype >= 0)
        if not _are_same(project[is_here], subtype[is_here]):
            names = np.where(is_here, np.char.add(f"{name} class ", subtype.astype(str)), "")
            yield "class", _groups(names, site)


def _groups(names: Shaped[np.ndarray, "b"], site: Shaped[np.ndarray, "b"]) -> list[_Group]:
    found, first, counts = np.unique(names, return_index=True, return_counts=True)
    return [
        _Group(str(name), str(site[i]), names == name)
        for name, i, count in zip(found, first, counts, strict=True)
        if name and count >= FEWEST
    ]


def _are_same(one: Shaped[np.ndarray, "b"], other: Shaped[np.ndarray, "b"]) -> bool:
    """Whether two namings make the same groups."""
    pairs = len(set(zip(one.tolist(), other.tolist(), strict=True)))
    return pairs == len(set(one.tolist())) == len(set(other.tolist()))


def _centred_leaks(values: Float[np.ndarray, "b g"], groups: list[_Group], by: str) -> Iterator[Leak]:
    num_cases = sum(int(group.rows.sum()) for group in groups)
    found = []
    for group in groups:
        here = values[group.rows]
        known, mean, std = np.isfinite(here).sum(axis=0), np.nanmean(here, axis=0), np.nanstd(here, axis=0)
        usable = (known >= FEWEST) & (std > 0)
        if usable.sum() < _FEWEST_GENES:
            continue
        distance = np.mean(known[usable] * (mean[usable] / std[usable]) ** 2)
        if distance < _CENTRED * (1 - len(here) / num_cases):
            found.append(group.name)
    if len(found) > 1:
        yield Leak(
            f"expression-centred-by-{by}",
            "error",
            f"expression was centred within {len(found)} of {len(groups)} {_PLURAL[by]}, each by itself: the"
            f" {by} of a case decided its values, which cannot be done for a new case; take values from"
            " before that step, scaling on train is done here",
            some(found),
        )


def _unit_leaks(values: Float[np.ndarray, "b g"], groups: list[_Group], by: str) -> Iterator[Leak]:
    found = []
    for name, (summary, differs) in _SUMMARIES.items():
        number = summary(values)
        for one, other in itertools.combinations(groups, 2):
            a, b = (number[group.rows & np.isfinite(number)] for group in (one, other))
            if min(len(a), len(b)) < FEWEST or not differs(float(np.median(a)), float(np.median(b))):
                continue
            if auroc(a, b) >= _SEPARATED:
                found.append(
                    f"{one.name} from {other.name} by {name}: {np.median(a):.3g} and {np.median(b):.3g}"
                )
    if found:
        yield Leak(
            f"expression-units-tell-{by}",
            "error",
            f"a single number of a case's expression tells {_PLURAL[by]} apart, so their units differ and a"
            f" model can read the {by} off the scale; take all cases from one source, in one unit",
            some(found),
        )


def _gene_leaks(is_measured: Bool[np.ndarray, "b g"], groups: list[_Group], by: str) -> Iterator[Leak]:
    found = []
    is_label = False
    for one, other in itertools.combinations(groups, 2):
        shares = [is_measured[group.rows].mean(axis=0) for group in (one, other)]
        num_genes = int((np.abs(shares[0] - shares[1]) >= _SEPARATED).sum())
        if num_genes:
            found.append(f"{one.name} from {other.name} by {num_genes} of {is_measured.shape[1]} genes")
            is_label |= one.site == other.site
    if found:
        yield Leak(
            f"expression-genes-tell-{by}",
            "error" if is_label else "warning",
            f"genes that are measured in one {by} and never in another give the {by} away; keep the genes"
            " that all have",
            some(found),
        )


def _pooled_leaks(values: Float[np.ndarray, "b g"], is_train: Bool[np.ndarray, "b"]) -> Iterator[Leak]:
    if values.shape[1] < _FEWEST_GENES or not FEWEST <= is_train.sum() <= len(values) - FEWEST:
        return
    if _is_standard(values) and not _is_standard(values[is_train]):
        yield Leak(
            "expression-standardised-on-test",
            "warning",
            "expression has mean 0 and standard deviation 1 over all cases and not over train: it was"
            " standardised with the test cases; take values before that step, scaling on train is done here",
        )


def _is_standard(values: Float[np.ndarray, "b g"]) -> bool:
    num_cases = len(values)
    mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    # Either convention of the standard deviation.
    off = np.minimum(np.abs(std - 1), np.abs(std * np.sqrt(num_cases / (num_cases - 1)) - 1))
    return bool(np.median(np.abs(mean)) < _EXACT and np.median(off) < _EXACT)


def _decimals(values: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b"]:
    """Decimals that each case's values are written with; more than `_ROUNDED_TO` count as one more."""
    found = np.full(len(values), _ROUNDED_TO + 1.0)
    for digits in range(_ROUNDED_TO, -1, -1):
        rest = np.abs(values - np.round(values, digits))
        # Relative, so that float32 of large values counts as rounded.
        is_rounded = (rest <= 1e-7 * np.abs(values) + 1e-12) | np.isnan(values)
        found[is_rounded.all(axis=1)] = digits
    found[np.isnan(values).all(axis=1)] = np.nan
    return found


def _spread(values: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b"]:
    return np.nanstd(values, axis=1)


def _median(values: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b"]:
    """In units of the spread within a case; NaN where values do not spread, so that there is no unit."""
    spread = np.nanmedian(_spread(values))
    return np.nanmedian(values, axis=1) / (spread if spread > 0 else np.nan)


_Summary = Callable[[Float[np.ndarray, "b g"]], Float[np.ndarray, "b"]]
_SUMMARIES: dict[str, tuple[_Summary, Callable[[float, float], bool]]] = {
    "median in standard deviations": (_median, lambda a, b: abs(a - b) > 0.5),
    "standard deviation": (_spread, lambda a, b: max(a, b) > 1.5 * min(a, b)),
    "share of zeros": (lambda values: (values == 0).mean(axis=1), lambda a, b: abs(a - b) > 0.1),
    "share missing": (lambda values: np.isnan(values).mean(axis=1), lambda a, b: abs(a - b) > 0.02),
    "decimals": (_decimals, lambda a, b: abs(a - b) >= 1),
}
"""Name -> the number of each case, and whether the medians of two groups differ by more than tissues do."""
