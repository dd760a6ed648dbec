"""Which experiments a sweep consists of: every config with every cohort."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import config_file
from modaltune_jax.config import Config, unpack
from modaltune_jax.types import InputError

COHORT = "{cohort}"
"""Stands for a cohort in the words of a config and in overrides."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config with everything filled in, in a folder of its own.

    Attributes:
      words: what `--config` is given.
      overrides: `key=value`, what `--config.` is given.
      cohort: that was filled in, "" for none.
      config: what these give.
      workdir: of its results.
    """

    words: str
    overrides: tuple[str, ...]
    cohort: str
    config: Config
    workdir: Path

    @property
    def name(self) -> str:
        return self.workdir.name

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Variant and seed of each run, in the order in which they are trained."""
        return [(variant, seed) for variant, _ in self.config.compare for seed in self.config.seeds]

    def folder(self, variant: str, seed: int) -> Path:
        return self.workdir / variant / f"seed{seed}"

    def is_finished(self, variant: str, seed: int) -> bool:
        """A run writes this table last."""
        return (self.folder(variant, seed) / "probes.csv").exists()


def make_grid(
    configs: Sequence[str],
    cohorts: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    out: Path,
) -> list[Experiment]:
    """Loads and checks every experiment, so that a mistake is told before hours of work.

    Args:
      configs: words of `--config`; those with `{cohort}` in them are run once a cohort.
      cohorts: what to fill in.
      seeds: of every experiment; none for those of its config.
      overrides: `key=value` for all experiments; `{cohort}` in a value is filled in too.
      out: folder of the experiments' folders, which bear the names of the configs.

    Raises:
      InputError: a config that cannot work, `{cohort}` without cohorts, cohorts without `{cohort}`, or two
        experiments of one name.
    """
    takes_cohort = {words: COHORT in words or any(COHORT in one for one in overrides) for words in configs}
    if cohorts and not any(takes_cohort.values()):
        raise InputError(
            f"--cohorts {' '.join(cohorts)}: no config says where they belong; write {COHORT} there, as in "
            f"configs/hipt.py:{COHORT},mean_pool or --config.data.directory=records/{COHORT}"
        )
    if not cohorts and any(takes_cohort.values()):
        raise InputError(f"{COHORT} stands for the cohorts of --cohorts, of which there are none")
    if seeds:
        overrides = [*overrides, f"seeds=({','.join(map(str, seeds))},)"]
    grid: dict[str, Experiment] = {}
    for words in configs:
        for cohort in cohorts if takes_cohort[words] else [""]:
            experiment = _make(words, overrides, cohort, out)
            if experiment.name in grid:
                raise InputError(
                    f"{words} and {grid[experiment.name].words} are both called {experiment.name}: sweep "
                    "them into two folders (--out), or give one another config.name"
                )
            grid[experiment.name] = experiment
    return list(grid.values())


def _make(words: str, overrides: Sequence[str], cohort: str, out: Path) -> Experiment:
    filled = words.replace(COHORT, cohort)
    values = tuple(override.replace(COHORT, cohort) for override in overrides)
    try:
        config = unpack(config_file.load(filled, values))
    except InputError as error:
        raise InputError(f"{filled}: {error}") from error
    is_named = not cohort or cohort in config.name.split("_")
    name = config.name if is_named else f"{config.name}_{cohort}"
    return Experiment(filled, values, cohort, config, out / name)
