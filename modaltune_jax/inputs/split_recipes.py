"""Splits drawn by a recipe: stratified fractions, folds, folds of whole tissue source sites."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from modaltune_jax.inputs.barcodes import is_barcode, tissue_source_site
from modaltune_jax.inputs.cohort import SPLITS
from modaltune_jax.types import InputError

_STRATUM = ["site", "subtype", "event"]
_FORMS = "stratified:0.7,0.15,0.15:SEED, kfold:K:FOLD:SEED or site-preserved:K:FOLD:SEED"
_ROUNDING = 1e-9
_LARGEST_SITE = 0.5  # of all cases; a larger one would leave less than half to train on or to test on


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """A recipe, read: `fractions` of train, val and test for "stratified", else `fold` of `num_folds`."""

    kind: str
    seed: int
    fractions: tuple[float, ...] = ()
    num_folds: int = 0
    fold: int = 0


def draw(recipe: str, frame: pd.DataFrame) -> dict[str, str]:
    """The split of every case.

    Strata are site x subtype x event; a subtype or event that is not known is a stratum of its own.

    - "stratified": in every stratum and in every class the number of cases of a split is its exact share,
      rounded up or down. Which way is chosen such that small strata, which cannot reach every split each,
      do so together.
    - "kfold": scikit-learn's `StratifiedKFold`. Fold FOLD (from 0) is test, the next one, cyclically, is val,
      the others are train: over the K folds every case is once in test and once in val.
    - "site-preserved": the same with scikit-learn's `StratifiedGroupKFold` on tissue source sites: a site is
      never divided, so a model cannot score by recognising the laboratory (Howard et al. 2021, who balance
      the folds by quadratic programming; this is a greedy balance).

    Args:
      recipe, frame: see `splits.make_splits`.

    Raises:
      InputError: the recipe is wrong, or the cases do not allow it.
    """
    parsed = _parse(recipe)
    table = _in_order(frame)
    if parsed.kind == "stratified":
        part = _stratified(table, parsed)
    else:
        fold = _folds(table, parsed)
        part = np.where(fold == parsed.fold, 2, np.where(fold == (parsed.fold + 1) % parsed.num_folds, 1, 0))
    _check_classes(table, part, recipe, [f > 0 for f in parsed.fractions] or [True] * len(SPLITS))
    return dict(sorted(zip(table["case_id"], (SPLITS[i] for i in part), strict=True)))


def all_folds(recipe: str) -> list[str]:
    """The recipes of all folds of the experiment that a recipe belongs to.

    >>> all_folds("kfold:3:0:7")
    ['kfold:3:0:7', 'kfold:3:1:7', 'kfold:3:2:7']

    Raises:
      InputError: the recipe is wrong, or has no folds.
    """
    parsed = _parse(recipe)
    if parsed.kind == "stratified":
        raise InputError(f"recipe {recipe!r} has no folds; use kfold or site-preserved, or another seed")
    return [f"{parsed.kind}:{parsed.num_folds}:{fold}:{parsed.seed}" for fold in range(parsed.num_folds)]


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a case by stratum and id: scikit-learn deals the strata in the order of their appearance."""
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()][0]
        raise InputError(f"case {twice} is twice in the table to split; keep one row a case")
    unknown = frame[_STRATUM].isna().any(axis=1)
    if unknown.any():
        raise InputError(
            f"case {frame.index[unknown][0]}: its site, subtype or event is missing; write -1 for a"
            " subtype or event that is not known"
        )
    table = frame.rename_axis("case_id").reset_index()
    return table.sort_values([*_STRATUM, "case_id"], ignore_index=True)


def _stratified(table: pd.DataFrame, recipe: _Recipe) -> Int[np.ndarray, "n"]:
    """Shares rounded up or down such that they are so for classes too, and as even as that allows overall."""
    rng = np.random.default_rng(recipe.seed)
    fractions = np.asarray(recipe.fractions)
    part = np.zeros(len(table), np.int64)
    behind = np.zeros(len(SPLITS))  # by how many cases, over all strata so far
    for _, of_class in table.groupby(["site", "subtype"]):
        behind_class = np.zeros(len(SPLITS))
        for _, stratum in of_class.groupby("event"):
            share = fractions * len(stratum)
            count = np.floor(share + _ROUNDING)
            due = share - count
            due_class, due_overall = behind_class + due, behind + due
            # With three splits there are always enough that may be rounded up, and never too many that must.
            may = (due > _ROUNDING) & (due_class > _ROUNDING)
            must = due_class > 1 - _ROUNDING
            order = np.lexsort([-np.round(due_overall, 6), ~must, ~may])
            count[order[: round(due.sum())]] += 1
            behind_class, behind = behind_class + share - count, behind + share - count
            part[rng.permutation(stratum.index)] = np.repeat(np.arange(len(SPLITS)), count.astype(np.int64))
    return part


def _folds(table: pd.DataFrame, recipe: _Recipe) -> Int[np.ndarray, "n"]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    num_folds = recipe.num_folds
    for (site, subtype), num_cases in table.value_counts(["site", "subtype"], sort=False).items():
        if subtype >= 0 and num_cases < num_folds:
            raise InputError(
                f"cohort {site}: class {subtype} has {num_cases} cases, fewer than the {num_folds} folds;"
                " choose fewer folds, or give its diagnoses no class"
            )
    strata = table.groupby(_STRATUM).ngroup()
    if strata.value_counts().max() < num_folds:
        raise InputError(
            f"no class has as many as {num_folds} cases with the same event, so {len(table)} cases cannot be"
            f" divided into {num_folds} folds; choose fewer folds"
        )
    if recipe.kind == "site-preserved":
        groups = _sites(table, num_folds)
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=recipe.seed)
    else:
        groups = None
        splitter = StratifiedKFold(num_folds, shuffle=True, random_state=recipe.seed)
    fold = np.zeros(len(table), np.int64)
    with warnings.catch_warnings():
        # Small strata are meant to be: they are dealt to some of the folds.
        warnings.filterwarnings("ignore", "The least populated class")
        for i, (_, test) in enumerate(splitter.split(table, strata, groups)):
            fold[test] = i
    return fold


def _sites(table: pd.DataFrame, num_folds: int) -> pd.Series:
    """Tissue source sites, such that they can be divided into folds."""
    if "tissue_source_site" in table:
        sites = table["tissue_source_site"].fillna("").astype(str)
    else:
        sites = table["case_id"].map(lambda id: tissue_source_site(id) if is_barcode(id) else "")
    if (sites == "").any():
        raise InputError(
            f"case {table['case_id'][sites == ''].iloc[0]} has no tissue source site, which TCGA barcodes"
            " hold; give it one, or use kfold"
        )
    sizes = sites.value_counts().sort_index()
    if len(sizes) < num_folds:
        raise InputError(
            f"the cases come from {len(sizes)} tissue source sites, which cannot be divided into {num_folds}"
            " folds; choose fewer folds, or kfold"
        )
    if sizes.max() > _LARGEST_SITE * len(table):
        raise InputError(
            f"tissue source site {sizes.idxmax()} has {sizes.max()} of the {len(table)} cases, more than"
            " half; no fold can hold it, use kfold"
        )
    return sites


def _check_classes(
    table: pd.DataFrame, part: Int[np.ndarray, "n"], recipe: str, is_used: Sequence[bool]
) -> None:
    """Every class must be in every split, or its score there means nothing."""
    for (site, subtype), rows in table.groupby(["site", "subtype"]):
        found = np.unique(part[rows.index])
        absent = [SPLITS[i] for i, used in enumerate(is_used) if used and i not in found]
        if subtype >= 0 and absent:
            raise InputError(
                f"cohort {site}: class {subtype} has {len(rows)} cases, and the recipe {recipe!r} puts none"
                f" in {' and '.join(absent)}; choose fewer folds, larger fractions or another seed, or give"
                " its diagnoses no class"
            )


def _parse(recipe: str) -> _Recipe:
    kind, *words = recipe.split(":")
    try:
        if kind == "stratified":
            shares, seed = words
            parsed = _Recipe(kind, int(seed), tuple(float(word) for word in shares.split(",")))
        elif kind in ("kfold", "site-preserved"):
            num_folds, fold, seed = words
            parsed = _Recipe(kind, int(seed), num_folds=int(num_folds), fold=int(fold))
        else:
            raise ValueError(kind)
    except ValueError:
        raise InputError(f"recipe {recipe!r} cannot be read; write {_FORMS}") from None
    if not 0 <= parsed.seed < 2**32:
        raise InputError(f"recipe {recipe!r}: the seed is {parsed.seed}; it must be from 0 to {2**32 - 1}")
    if kind == "stratified":
        _check_fractions(recipe, parsed.fractions)
    elif parsed.num_folds < 3:
        raise InputError(f"recipe {recipe!r}: train, val and test need at least 3 folds")
    elif not 0 <= parsed.fold < parsed.num_folds:
        raise InputError(f"recipe {recipe!r}: fold {parsed.fold} is none of 0 to {parsed.num_folds - 1}")
    return parsed


def _check_fractions(recipe: str, fractions: Sequence[float]) -> None:
    if len(fractions) != len(SPLITS):
        raise InputError(f"recipe {recipe!r}: gives {len(fractions)} fractions; give train, val and test")
    if not all(0 <= fraction <= 1 for fraction in fractions) or not math.isclose(
        sum(fractions), 1, abs_tol=1e-6
    ):
        raise InputError(f"recipe {recipe!r}: the fractions of train, val and test must add up to 1")
    if fractions[0] == 0:
        raise InputError(f"recipe {recipe!r}: leaves nothing to train on; give train a fraction")
