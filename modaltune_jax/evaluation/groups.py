"""Which cases are scored together: every split, by site, pooled, and the mean over sites."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.evaluation.measures import Bootstrap, Measured, known, measure
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.scores import OVERALL, POOLED

ALL = "all"
"""In place of a split: all cases but those that anything was fitted on."""


@dataclasses.dataclass(frozen=True)
class Key:
    """What a row of results is about.

    Attributes:
      protocol: "in distribution", "refitted" or "as trained".
      split: scored.
      site: of the cases; "pooled" for the cases of all, "overall" for the mean over sites.
      target, task, method, scope: as in case scores.
      variable, level: of a subgroup, such as "stage" and "3"; "" for all cases.
    """

    protocol: str
    split: str
    site: str
    target: str
    task: str
    method: str
    scope: str
    variable: str = ""
    level: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Cases that are scored together, and all metrics on them.

    Attributes:
      key: what they are.
      rows: known rows of case scores; empty for the mean over sites.
      train: known rows of the training cases of the same method and scope.
      measured: the metrics.
    """

    key: Key
    rows: pd.DataFrame
    train: pd.DataFrame
    measured: tuple[Measured, ...]

    @property
    def cases(self) -> int:
        """A number that groups of the same cases share."""
        return zlib.crc32("\n".join(self.rows["case_id"]).encode("utf-8"))


def groups_of(
    scores: pd.DataFrame, protocol: str, splits: Sequence[str], bootstrap: Bootstrap, *, by: str = "scope"
) -> list[Group]:
    """Scores all there is in case scores.

    Args:
      scores: with survival columns.
      protocol: as of `Key`.
      splits: to score; `ALL` for every case but the training ones.
      bootstrap: of the intervals.
      by: "scope": what was fitted on a site is scored on this site. "site": all rows there are, site by site.
    """
    groups = []
    for (target, task, method), block in scores.groupby(["target", "task", "method"], sort=False):
        for split in splits:
            found = []
            for site, scope, rows, train in _parts(block, split, by):
                key = Key(protocol, split, site, target, task, method, scope)
                found.append(scored(key, rows, train, bootstrap))
            groups += found
            sites = [group for group in found if group.key.site not in (POOLED, OVERALL)]
            if sites and len(found) > 1:
                groups.append(_mean_over_sites(sites))
    return groups


def scored(
    key: Key, rows: pd.DataFrame, train: pd.DataFrame, bootstrap: Bootstrap, *, is_main_only: bool = False
) -> Group:
    """A group of some rows, of which only the known ones count, by all metrics or by the main one."""
    rows, train = known(rows), known(train)
    name = "/".join((key.split, key.site, key.target, key.variable, key.level))
    measured = measure(key.target, rows, train, bootstrap, name, is_main_only=is_main_only)
    return Group(key, rows, train, tuple(measured))


def _parts(block: pd.DataFrame, split: str, by: str) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Site, scope, rows to score and training rows."""
    for scope, rows in block.groupby("scope", sort=False):
        is_train = rows["split"] == "train"
        chosen = rows[~is_train if split == ALL else rows["split"] == split]
        whole = OVERALL if rows["target"].iloc[0] == "site" else scope
        if by == "site":
            for site, of_site in chosen.groupby("site", sort=False):
                yield str(site), str(scope), of_site, rows[is_train]
            whole = POOLED if scope == POOLED else ""
        if whole:
            yield str(whole), str(scope), chosen, rows[is_train]


def _mean_over_sites(sites: Sequence[Group]) -> Group:
    measured = []
    for metric in dict.fromkeys(one.metric for group in sites for one in group.measured):
        by_site = {group.key.site: one for group in sites for one in group.measured if one.metric == metric}
        good = [one for one in by_site.values() if one.estimate.is_estimable]
        missing = [site for site, one in by_site.items() if not one.estimate.is_estimable]
        estimate = Estimate(
            math.fsum(one.estimate.value for one in good) / len(good) if good else math.nan,
            sum(one.estimate.num for one in good),
            sum(one.estimate.num_events for one in good),
            f"without {', '.join(missing)}" if missing else "",
        )
        measured.append(Measured(metric, estimate, mean_of_draws([one.draws for one in good])))
    key = dataclasses.replace(sites[0].key, site=OVERALL, scope="site")
    rows = pd.concat([group.rows for group in sites])
    return Group(key, rows, sites[0].train.iloc[:0], tuple(measured))


def mean_of_draws(draws: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "_"]:
    """Draw by draw; none if one of them has none."""
    if not draws or len({len(one) for one in draws}) > 1:
        return np.zeros(0)
    return np.mean(draws, axis=0)
