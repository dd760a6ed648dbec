"""An experiment: every variant and seed of a config, then one table and one figure of them all."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from absl import logging

from modaltune_jax import results
from modaltune_jax.config import Config
from modaltune_jax.figures import comparison_figure, training_figure
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.inputs.records import Records
from modaltune_jax.probes import probe_table
from modaltune_jax.targets import Targets, load_encoder, targets_of_records
from modaltune_jax.train import build, embed, restore_best, train
from modaltune_jax.types import InputError

SPLITS = ("val", "test")


def run(config: Config, workdir: Path, *, is_training: bool) -> pd.DataFrame:
    """Trains (or only evaluates) every variant and seed, and prints the table of all.

    Finished runs are kept: the same command again goes on with what is missing.

    Args:
      config: the experiment.
      workdir: gets `<variant>/seed<k>/` for each run, `results.csv`, `results.json` and figures.
      is_training: False takes checkpoints as they are.

    Returns:
      The results of all runs, one row a (variant, seed, split, site, target).

    Raises:
      InputError: whatever is wrong with the config, the data or the folder.
    """
    records = prepare(config.data)
    encoder = load_encoder(config.text.encoder)
    targets = targets_of_records(
        records,
        encoder,
        config.text,
        num_bins=config.data.num_bins,
        bins=config.data.bins,
        dim=config.model.embedding_dim,
    )
    _describe(records)
    tables = []
    for variant, modalities in config.compare:
        for seed in config.seeds:
            folder = workdir / variant / f"seed{seed}"
            table = _one_run(config, folder, seed, modalities, records, targets, is_training=is_training)
            tables.append(table.assign(variant=variant, seed=seed))
    everything = pd.concat(tables, ignore_index=True)
    results.write(everything, workdir / "results")
    comparison_figure(everything, workdir / "results.png")
    print(f"\n{results.to_text(everything)}\n\nresults in {workdir}/: results.csv, results.json, results.png")
    return everything


def _one_run(
    config: Config,
    folder: Path,
    seed: int,
    modalities: tuple[str, ...],
    records: Records,
    targets: Targets,
    *,
    is_training: bool,
) -> pd.DataFrame:
    """Trains one model if it is not finished, and probes its best checkpoint."""
    done = folder / "probes.csv"
    described = json.loads(json.dumps(dataclasses.asdict(config)))
    _check_same_config(folder, described)
    if is_training and done.exists():
        logging.info("%s is finished; remove it to train again", folder)
        return pd.read_csv(done, keep_default_na=False, na_values={"value": [""]})
    run, state = build(config, seed, modalities, records, targets)
    if is_training:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", described)
        train(run, state, folder)
        training_figure(folder)
    best, meta = restore_best(run, state, folder)
    embeddings = embed(run, best, ("train", *SPLITS))
    table = probe_table(embeddings, records.table, records.sites, SPLITS)
    results.save_embeddings(folder / "embeddings.npz", embeddings, records.table)
    results.write(table, folder / "probes")
    logging.info("%s: best checkpoint at step %s", folder, meta["step"])
    return table


def _describe(records: Records) -> None:
    """A line a site: cases, and what they have."""
    table = records.table
    print(f"{records.num_cases} cases of {len(records.sites)} sites in {records.directory}")
    for site, cases in table.groupby("site", sort=False):
        splits = "  ".join(f"{split} {sum(cases['split'] == split)}" for split in ("train", *SPLITS))
        print(
            f"  {site}: {splits}; without slides {sum(cases['num_tiles'] == 0)}, without expression "
            f"{sum(~cases['has_expression'])}; deaths {sum(cases['event'] == 1)}; tiles a case "
            f"{cases['num_tiles'].median():.0f} (median), {cases['num_tiles'].max()} (most)"
        )


def _check_same_config(folder: Path, described: dict[str, Any]) -> None:
    """A folder holds the runs of one config: going on with another would mix two experiments."""
    path = folder / "config.json"
    if not path.exists():
        return
    before = pd.json_normalize(json.loads(path.read_text(encoding="utf-8"))).iloc[0].to_dict()
    now = pd.json_normalize(described).iloc[0].to_dict()
    # What else is trained beside a run, and on which devices, does not change it.
    free = ("seeds", "compare", "mesh.", "name")
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and not key.startswith(free):
            raise InputError(
                f"{folder} was trained with {key}={before.get(key)!r}, the config now says {now.get(key)!r}: choose "
                "another --workdir, or remove that folder"
            )


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)
