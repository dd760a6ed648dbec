"""From what a config names to records on disk, once: simulate or read a source, check, write."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import logging

from modaltune_jax.inputs.cohort import check_cases, find_spec
from modaltune_jax.inputs.records import Records, write
from modaltune_jax.inputs.simulate import SimulationConfig, simulate
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The cases of an experiment.

    Attributes:
      source: "records" (packed already), "simulation", or "tcga_bench" (compiled TCGA tables).
      directory: the records; written from the source when they do not exist yet.
      path: where the source lies.
      cohorts: sites to read, by the names of `data/<name>.toml`.
      expression: which expression table of the source, see its reader.
      gene_sets: CSV of pathway (or group) and gene, relative to `path`.
      num_bins: quantile bins of survival time for the sentences.
      bins: "train" fits the bins on uncensored training cases; "reference" on all cases, as published.
      simulation: sizes of the simulated cohort.
    """

    source: str
    directory: str
    path: str
    cohorts: tuple[str, ...]
    expression: str
    gene_sets: str
    num_bins: int
    bins: str
    simulation: SimulationConfig


def prepare(config: DataConfig) -> Records:
    """Opens the records of a config, writing them first if their source has to be read.

    Raises:
      InputError: a folder that is missing, an unknown source, or cases that fail `check_cases`.
    """
    directory = Path(config.directory).expanduser()
    if not directory.exists() and config.source in _SOURCES:
        cases, genes, gene_sets, specs = _SOURCES[config.source](config)
        for warning in check_cases(cases, specs):
            logging.warning(warning)
        write(
            directory,
            cases,
            genes=genes,
            gene_sets=gene_sets,
            specs=specs,
            source=config.source,
            encoder=config.source,
        )
    elif config.source != "records" and config.source not in _SOURCES:
        raise InputError(
            f"data.source is {config.source!r}; it must be one of: records, {', '.join(_SOURCES)}"
        )
    return Records(directory)


def _simulation(config: DataConfig):
    return simulate(config.simulation)


def _tcga_bench(config: DataConfig):
    from modaltune_jax.inputs.genesets import read_gene_sets
    from modaltune_jax.inputs.readers import tcga_bench

    cases, genes = tcga_bench.read(config.path, config.cohorts, config.expression)
    gene_sets = read_gene_sets(Path(config.path) / config.gene_sets, genes)
    return cases, genes, gene_sets, [find_spec(name) for name in config.cohorts]


_SOURCES = {"simulation": _simulation, "tcga_bench": _tcga_bench}
