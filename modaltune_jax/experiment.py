"""An experiment: every variant and seed of a config, then one table and one figure of them all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from modaltune_jax import case_scores, predictions, results
from modaltune_jax.config import Config, describe, unpack
from modaltune_jax.config_checks import modality_flags
from modaltune_jax.distributed import first_goes_first, is_first
from modaltune_jax.figures import comparison_figure, training_figure
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.inputs.records import Records
from modaltune_jax.memory_plan import plan_memory
from modaltune_jax.models.modaltune import ModelConfig
from modaltune_jax.run_manifest import recorded
from modaltune_jax.scores import Predicted, score_table
from modaltune_jax.selection import check_selection
from modaltune_jax.targets import Targets, targets_of_config
from modaltune_jax.train import Run, build, predict, predicted, restore_best, train
from modaltune_jax.train_step import TrainState
from modaltune_jax.types import InputError

SPLITS = ("val", "test")

# For one run: what is trained beside it, on which devices, how fast, and what a kill would lose.
_CHANGES_NOTHING = (
    *("name", "seeds", "mesh.", "pipeline.num_threads", "pipeline.prefetch", "text.cache_dir"),
    *("checkpoint.every_minutes", "checkpoint.grace_seconds", "checkpoint.keep"),
)


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
    described = describe(config)
    runs = [(variant, shown, seed) for variant, shown in config.compare for seed in config.seeds]
    folders = [workdir / variant / f"seed{seed}" for variant, _, seed in runs]
    for folder, (variant, _, _) in zip(folders, runs, strict=True):
        _check_same_config(folder, variant, described)
    with first_goes_first("records and targets"):
        records, targets = _records_and_targets(config)
    _describe(records)
    tables: list[pd.DataFrame] = []
    is_writing = is_training and is_first()
    with contextlib.ExitStack() as all_runs:
        for folder, (variant, shown, seed) in zip(folders, runs, strict=True):
            is_finished = is_training and (folder / "probes.csv").exists()
            # Both refuse what cannot be, so before manifests are written.
            built = None if is_finished else build(config, seed, shown, records, targets)
            if is_writing:
                folder.mkdir(parents=True, exist_ok=True)
            if not tables:
                all_runs.enter_context(
                    recorded(workdir, described, records, config.seeds, is_writing=is_writing)
                )
            if built is None:
                print(f"{folder} is finished; remove it to train again")
                table = results.read(folder / "probes")
            else:
                with recorded(folder, described, records, [seed], is_writing=is_writing):
                    table = _run_one(*built, folder, is_training=is_training)
            tables.append(table.assign(variant=variant, seed=seed))
            del built  # its weights have no place beside those of the next
    everything = pd.concat(tables, ignore_index=True)
    if is_first():
        results.write(everything, workdir / "results")
        comparison_figure(everything, workdir / "results.png")
    print(f"\n{results.to_text(everything)}\n\nresults in {workdir}/: results.csv, results.json, results.png")
    return everything


def _records_and_targets(config: Config) -> tuple[Records, Targets]:
    records = prepare(config.data)
    check_selection(records.table, records.sites, config.checkpoint.best)
    _check_gene_sets(config, records)
    return records, targets_of_config(config, records)


def _run_one(run: Run, state: TrainState, folder: Path, *, is_training: bool) -> pd.DataFrame:
    """Trains, or goes on, and probes the best checkpoint."""
    if is_training:
        if is_first():
            _write_json(folder / "config.json", describe(run.config))
        if run.seed == run.config.seeds[0]:
            _check_memory(run, state)
        train(run, state, folder)
        if is_first():
            training_figure(folder)
    return _probe_best(run, state, folder, is_training=is_training)


def _check_memory(run: Run, state: TrainState) -> None:
    """Prints what the largest batch will take; other seeds take the same."""
    plan = plan_memory(run.train_step, state, run.frozen, run.batches, run.mesh)
    if is_first():
        print(plan.to_text(getattr(run.config.model.encoder, "remat", None)))
    plan.check()


def _probe_best(run: Run, state: TrainState, folder: Path, *, is_training: bool) -> pd.DataFrame:
    """Probes the best checkpoint; `probes.csv` also says that the run is finished."""
    best, meta = restore_best(run, state, folder)
    print(f"{folder}: best checkpoint at epoch {meta['step'] / run.steps_per_epoch:g}")
    outputs = predict(run, best, ("train", *SPLITS))
    said = predicted(run, outputs)
    table = score_table(said, run.records.table, SPLITS)
    if is_first():
        _write_results(run, folder, outputs, said, table, is_training=is_training)
    return table


def _write_results(
    run: Run,
    folder: Path,
    outputs: dict[str, np.ndarray],
    said: list[Predicted],
    table: pd.DataFrame,
    *,
    is_training: bool,
) -> None:
    cases, labels = run.records.table, run.targets.supervision.labels
    heads = {name: values for name, values in outputs.items() if name != "embedding"}
    results.save_embeddings(folder / "embeddings.npz", outputs["embedding"], cases, **heads)
    if heads:
        results.write(predictions.predict(outputs, cases, run.records.sites, labels), folder / "predictions")
    if is_training or (folder / "probes.csv").exists():
        case_scores.write(folder / case_scores.NAME, case_scores.of_predicted(said, run.judged_cases))
        results.write(table, folder / "probes")


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


def config_of_run(folder: Path) -> Config:
    """The config that a run was trained with.

    Raises:
      InputError: the folder holds no run, or one of another version of this package.
    """
    saved = _read_config(folder)
    if saved is None:
        raise InputError(
            f"{folder} holds no run: there is no config.json; runs lie in <workdir>/<variant>/seed<k>"
        )
    return unpack(ConfigDict(saved))


def _read_config(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}): remove {folder}, or choose another --workdir"
        ) from error


def _check_same_config(folder: Path, variant: str, described: dict[str, Any]) -> None:
    """A folder holds one run of one config: going on with another would mix two experiments."""
    saved = _read_config(folder)
    if saved is None:
        return
    before, now = (
        pd.json_normalize(config).iloc[0].to_dict() | {"compare": dict(config["compare"]).get(variant)}
        for config in (saved, described)
    )
    counting = [key for key in sorted({*before, *now}) if not key.startswith(_CHANGES_NOTHING)]
    for key in counting:
        if key in before and key in now and before[key] != now[key]:
            raise InputError(
                f"{folder} was trained with {key}={before[key]!r}, the config now says {now[key]!r}: "
                "choose another --workdir, or remove that folder"
            )
    for key in counting:
        if key not in before or key not in now:
            raise InputError(
                f"{folder} was trained by another version of this package, which "
                f"{'has' if key in before else 'lacks'} the key config.{key}: choose another --workdir, or "
                "remove that folder"
            )


def _check_gene_sets(config: Config, records: Records) -> None:
    modalities = config.model.modalities
    if "expression" not in modalities or not isinstance(config.model, ModelConfig):
        return
    num_sets, expansion = len(records.gene_sets.groups), config.model.pathways.pathway_expansion
    if not num_sets:
        others = tuple(modality for modality in modalities if modality != "expression") or ("slides",)
        raise InputError(
            f"{records.directory} has no gene sets, so nothing of expression can be shown: write records "
            f"with --expression and --gene-sets, or train without, {modality_flags(others)}"
        )
    if int(num_sets * expansion) < 1:
        raise InputError(
            f"{records.directory} has {num_sets} gene sets, of which config.model.pathways.pathway_expansion="
            f"{expansion} leaves nothing: raise it, write records with more gene sets, or take expression "
            "out of config.model.modalities"
        )


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)
