"""From what a config names to records on disk, once: simulate or read a source, check, write."""

from __future__ import annotations

import dataclasses
import json
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
      clinical: clinical values that the model is shown: "stage", "t", "n", "m", "age", and the variables of
        the records.
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
    clinical: tuple[str, ...]
    simulation: SimulationConfig


def prepare(config: DataConfig) -> Records:
    """Opens the records of a config, writing them first if their source has to be read.

    Raises:
      InputError: a folder that is missing, an unknown source, cases that fail `check_cases`, or records that
        were written from other settings.
    """
    directory = Path(config.directory).expanduser()
    if config.source == "records":
        return Records(directory)
    if config.source not in _SOURCES:
        raise InputError(
            f"data.source is {config.source!r}; it must be one of: records, {', '.join(_SOURCES)}"
        )
    if not directory.exists():
        _write(directory, config)
    records = Records(directory)
    if records.source != _describe(config):
        raise InputError(
            f"{directory} was written from other settings ({records.source}) than the config now gives"
            f" ({_describe(config)}): choose another data.directory, or remove that folder"
        )
    return records


def _write(directory: Path, config: DataConfig) -> None:
    cases, genes, gene_sets, specs = _SOURCES[config.source](config)
    for warning in check_cases(cases, specs):
        logging.warning(warning)
    write(
        directory,
        cases,
        genes=genes,
        gene_sets=gene_sets,
        specs=specs,
        source=_describe(config),
        encoder=config.source,
        progress=True,
    )


def _describe(config: DataConfig) -> str:
    """What decides the records, as text that they keep; not where the source lies."""
    if config.source == "simulation":
        settings = dataclasses.asdict(config.simulation)
    else:
        settings = {key: getattr(config, key) for key in ("cohorts", "expression", "gene_sets")}
    return json.dumps({"source": config.source, **settings})


def _simulation(config: DataConfig):
    return simulate(config.simulation)


def _tcga_bench(config: DataConfig):
    from modaltune_jax.inputs.genesets import read_gene_sets
    from modaltune_jax.inputs.readers import tcga_bench

    cases, genes = tcga_bench.read(config.path, config.cohorts, config.expression)
    gene_sets = read_gene_sets(Path(config.path) / config.gene_sets, genes)
    return cases, genes, gene_sets, [find_spec(name) for name in config.cohorts]


_SOURCES = {"simulation": _simulation, "tcga_bench": _tcga_bench}
