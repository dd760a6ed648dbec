"""Training one run: build and loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jax.sharding import Mesh

from modaltune_jax import partitioning
from modaltune_jax.agreement import GO_ON, SAVE, STOP, Agreement
from modaltune_jax.checkpoints import Checkpoints
from modaltune_jax.config import Config
from modaltune_jax.distributed import is_first
from modaltune_jax.embed_cases import predict_cases
from modaltune_jax.heads_table import head_predictions
from modaltune_jax.inputs.pipeline import Batches, PipelineConfig, eval_batches, train_batches
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import Transforms
from modaltune_jax.losses.combine import make_objective
from modaltune_jax.losses.risk_memory import RiskMemory
from modaltune_jax.models.baselines.baseline import Baseline, BaselineModelConfig
from modaltune_jax.models.build import build_model
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune, ModelConfig
from modaltune_jax.models.weights import load_adapter_weights, load_encoder_weights
from modaltune_jax.monitor import Monitor
from modaltune_jax.optim import Params, count, make_optimizer, split_params
from modaltune_jax.probes import probe_predictions
from modaltune_jax.scores import Predicted, has_survival, judged_cases, score_table
from modaltune_jax.selection import selection_score
from modaltune_jax.signals import StopSignals
from modaltune_jax.targets import Targets
from modaltune_jax.train_step import TrainState, make_predict_step, make_train_step
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a run needs besides its state.

    Attributes:
      config: the experiment.
      seed: of initialisation, order of cases and dropout.
      pipeline: how batches are made, and which modalities the model is shown.
      records: the cases.
      targets: text targets and what was fitted on train to make them.
      mesh: the devices.
      frozen: parameters that nothing updates.
      encoder_hash: sha256 that names the encoder's weights.
      train_step: `(state, frozen, batch) -> (state, metrics)`, jitted.
      predict_step: `(trainable, frozen, batch) -> {"embedding": [b, t, e], ...}`, jitted, with what the heads
        that there are say: "risk" `[b]`, "hazard" `[b, c]`, "classes" and "similarity" `[b, k]`.
      batches: training batches without end.
    """

    config: Config
    seed: int
    pipeline: PipelineConfig
    records: Records
    targets: Targets
    mesh: Mesh
    frozen: Params
    encoder_hash: str
    train_step: Callable[..., Any]
    predict_step: Callable[..., Any]
    batches: Batches

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every training case is seen once."""
        return self.batches.steps_per_epoch

    @property
    def judged_cases(self) -> pd.DataFrame:
        """The table of cases, without the labels of those that the model is shown nothing of."""
        return judged_cases(self.records.table, self.pipeline.modalities)


def build(
    config: Config, seed: int, modalities: tuple[str, ...], records: Records, targets: Targets
) -> tuple[Run, TrainState]:
    """A run and its first state, on the mesh.

    Args:
      config: the experiment.
      seed: of this run.
      modalities: what the model is shown; others are absent in every case.
      records: the cases.
      targets: their text targets.

    Raises:
      InputError: features of another width than the encoder's, missing encoder weights, parameters that
        `optim.rules` do not decide about.
    """
    _check_features(config, records)
    memory = _memory_size(config, records)
    mesh = partitioning.make_mesh(config.mesh)
    model, encoder_hash = _first_model(config, seed, records, targets)
    graphdef, state = nnx.split(model)
    trainable, frozen = split_params(nnx.to_pure_dict(state), config.optim.rules)
    print(f"{count(trainable):,} trainable and {count(frozen):,} frozen parameters")

    pipeline = dataclasses.replace(config.pipeline, modalities=modalities)
    batches = train_batches(
        records,
        records.rows("train"),
        targets.values,
        targets.transforms,
        pipeline,
        seed=seed,
        **_shards(mesh),
    )
    print(batches.plan.describe())
    optimizer = make_optimizer(config.optim, batches.steps_per_epoch)
    trainable = partitioning.shard_params(trainable, mesh)
    first = TrainState(
        partitioning.replicate(jnp.int32(0), mesh),
        partitioning.replicate(jnp.uint32(seed), mesh),
        trainable,
        partitioning.shard_opt_state(optimizer, trainable, mesh),
        partitioning.replicate(RiskMemory.empty(memory), mesh) if memory else None,
    )
    run = Run(
        config=config,
        seed=seed,
        pipeline=pipeline,
        records=records,
        targets=targets,
        mesh=mesh,
        frozen=partitioning.shard_params(frozen, mesh),
        encoder_hash=encoder_hash,
        train_step=make_train_step(
            graphdef,
            optimizer,
            make_objective(config.loss, targets.supervision.space, batches.steps_per_epoch),
            mesh,
            first,
        ),
        predict_step=make_predict_step(graphdef, targets.supervision.space.bank, mesh),
        batches=batches,
    )
    return run, first


def train(run: Run, state: TrainState, workdir: Path) -> TrainState:
    """Trains to the end of the schedule, or goes on from where an earlier call was stopped.

    A step's checkpoint is from before its validation, which a run that goes on from there does again: so what
    is picked as best does not depend on where a run was stopped.

    Args:
      run: from `build`.
      state: the first state, replaced by the latest checkpoint's if there is one.
      workdir: gets `metrics.jsonl`, `tensorboard/`, `probes_val.csv` and `checkpoints/`.

    Returns:
      The last state. The best one is in the checkpoints.

    Raises:
      FloatingPointError: the loss is not finite; the latest checkpoint is from before.
      KeyboardInterrupt: Ctrl-C, or `Terminated` for SIGTERM and SIGUSR1; everything is saved.
    """
    config, every = run.config.checkpoint, run.config.checkpoint.every_epochs * run.steps_per_epoch
    num_steps = run.config.optim.epochs * run.steps_per_epoch
    batches = iter(run.batches)
    agreement = Agreement(run.mesh)
    with (
        StopSignals(config.grace_seconds) as signals,
        Checkpoints(workdir / "checkpoints", config) as checkpoints,
    ):
        state, best, data = _go_on(run, state, checkpoints, workdir)
        if data is not None:
            batches.set_state(data)
        start = int(state.step)
        is_writing = is_first()
        with Monitor(workdir, start, num_steps, run.steps_per_epoch, is_writing=is_writing) as monitor:
            for step in range(start, num_steps + 1):
                if step > start:
                    batch = partitioning.shard_batch(next(batches), run.mesh)
                    state, metrics = run.train_step(state, run.frozen, batch)
                    monitor.train(step, metrics)
                is_validated = step == num_steps or (step > 0 and step % every == 0)
                todo = agreement.after(
                    step, STOP if signals.received else SAVE if checkpoints.is_due else GO_ON
                )
                if step > start and (is_validated or todo != GO_ON):
                    monitor.flush()  # raises before weights that are not finite are saved
                    checkpoints.save("latest", step, _saved(run, state), _meta(run, batches.get_state()))
                if todo == STOP:
                    raise signals.error(
                        f"stopped after step {step} of {num_steps} and saved in {workdir}: the same command "
                        "goes on from there"
                    )
                if is_validated:
                    best = _validate(run, state, step, best, signals, monitor, checkpoints)
    return state


def _go_on(
    run: Run, state: TrainState, checkpoints: Checkpoints, workdir: Path
) -> tuple[TrainState, float, dict[str, Any] | None]:
    """The latest state, the best score so far and the position in the data, None at the beginning."""
    restored = checkpoints.restore("latest", _saved(run, state))
    if restored is None:
        return state, -math.inf, None
    _check_same_run(run, restored.meta, workdir)
    _check_same_batches(run, restored.meta, workdir)
    best = checkpoints.restore_meta("best")
    return restored.state["state"], -math.inf if best is None else best["score"], restored.meta["data"]


def _validate(
    run: Run,
    state: TrainState,
    step: int,
    best: float,
    signals: StopSignals,
    monitor: Monitor,
    checkpoints: Checkpoints,
) -> float:
    """Scores the model on validation and keeps it if it is the best; returns the best score so far."""
    # Not where other processes would wait for this one.
    with signals.interrupting() if jax.process_count() == 1 else contextlib.nullcontext():
        table = probe(run, state.trainable, ("val",))
    score = selection_score(table, run.config.checkpoint.best, step)
    monitor.probes(step, table, score)
    if score <= best:
        return best
    kept = {"trainable": state.trainable, "projector": run.targets.projector_arrays()}
    checkpoints.save("best", step, kept, {**_meta(run, {}), "step": step, "score": score})
    return score


def probe(run: Run, trainable: Params, splits: tuple[str, ...]) -> pd.DataFrame:
    """Embeds train and `splits`, fits the probes on train, scores probes and heads on `splits`."""
    return score(run, predict(run, trainable, ("train", *splits)), splits)


def score(run: Run, outputs: dict[str, np.ndarray], splits: tuple[str, ...]) -> pd.DataFrame:
    """Probes on what `predict` gave, and its heads, in one table."""
    return score_table(predicted(run, outputs), run.records.table, splits)


def predicted(run: Run, outputs: dict[str, np.ndarray]) -> list[Predicted]:
    """What probes on what `predict` gave, fitted on train, and its heads say of every case."""
    table, sites, labels = run.judged_cases, run.records.sites, run.targets.supervision.labels
    return [
        *probe_predictions(outputs["embedding"], table, sites),
        *head_predictions(outputs, table, sites, labels),
    ]


def predict(run: Run, trainable: Params, splits: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What `Run.predict_step` says of every case of `splits`, by row; NaN rows for the others."""
    rows = np.concatenate([run.records.rows(split) for split in splits])
    batches = eval_batches(
        run.records, rows, run.targets.values, run.targets.transforms, run.pipeline, **_shards(run.mesh)
    )
    step = lambda batch: run.predict_step(trainable, run.frozen, batch)  # noqa: E731
    return predict_cases(step, batches, run.mesh, run.records.num_cases)


def restore_best(run: Run, state: TrainState, workdir: Path) -> tuple[Params, dict[str, Any]]:
    """The best trainable parameters of a finished or running run, and what was noted beside them.

    Raises:
      InputError: there is no checkpoint, or it was trained on another encoder.
    """
    with Checkpoints(workdir / "checkpoints", run.config.checkpoint) as checkpoints:
        like = {"trainable": state.trainable, "projector": run.targets.projector_arrays()}
        restored = checkpoints.restore("best", like)
    if restored is None:
        raise InputError(
            f"{workdir} holds no checkpoint that was validated: train first, or longer (--mode=train)"
        )
    _check_same_run(run, restored.meta, workdir)
    return restored.state["trainable"], restored.meta


def _first_model(
    config: Config, seed: int, records: Records, targets: Targets
) -> tuple[ModalTune | Baseline, str]:
    """The model that training starts from, and the hash of its encoder's weights."""
    inputs = ModalInputs(records.gene_sets.groups, len(targets.transforms.clinical), len(records.genes))
    model = build_model(config.model, inputs, targets.supervision.heads, rngs=nnx.Rngs(seed))
    encoder_hash = load_encoder_weights(model.encoder, config.encoder_weights, config.model.encoder)
    load_adapter_weights(model, config.adapter_weights, config.model.encoder, encoder_hash)
    return model, encoder_hash


def _check_features(config: Config, records: Records) -> None:
    model = config.model
    if isinstance(model, BaselineModelConfig) and "slides" not in model.modalities:
        return
    if not records.feature_dim:
        raise InputError(f"no case in {config.data.directory} has slides: a slide encoder needs some")
    if records.feature_dim != model.in_dim:
        what, key = ("encoder", "encoder.in_dim") if isinstance(model, ModelConfig) else ("model", "in_dim")
        raise InputError(
            f"tile features in {config.data.directory} are {records.feature_dim} wide, but the {what} takes "
            f"{model.in_dim}: set model.{key}={records.feature_dim} or use features of its own tile encoder"
        )


def _memory_size(config: Config, records: Records) -> int:
    train = records.table.iloc[records.rows("train")]
    # A case of unknown survival takes no place.
    num_known = int(has_survival(train["time"].to_numpy(np.float64), train["event"].to_numpy()).sum())
    if 0 < num_known <= config.loss.cox.memory:
        raise InputError(
            f"config.loss.cox.memory={config.loss.cox.memory} holds every one of the {num_known} training "
            "cases of known survival, so that a case would be compared with itself: make it smaller"
        )
    return config.loss.cox.memory


def _saved(run: Run, state: TrainState) -> dict[str, Any]:
    """The arrays to go on from."""
    return {"state": state, "projector": run.targets.projector_arrays()}


def _meta(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """What is written beside the arrays, such as the position in the data."""
    return {
        "data": data,
        "batches": _batches(run),
        "seed": run.seed,
        "modalities": list(run.pipeline.modalities),
        "encoder": run.encoder_hash,
        "targets": run.targets.to_dict(),
    }


def _check_same_run(run: Run, meta: dict[str, Any], workdir: Path) -> None:
    expected = _meta(run, {})
    for key in ("seed", "modalities", "encoder", "targets"):
        if meta[key] != expected[key]:
            _check_same_version(meta, workdir)
            raise InputError(
                f"{workdir} was trained with another {key} than this config gives: choose another "
                "--workdir, or remove that folder"
            )


def _check_same_version(meta: dict[str, Any], workdir: Path) -> None:
    try:
        Transforms.from_json(meta["targets"]["transforms"])
    except InputError as error:
        raise InputError(f"{workdir}: {error}") from error


def _check_same_batches(run: Run, meta: dict[str, Any], workdir: Path) -> None:
    """Devices share a batch equally: many of them can make it larger, and a step is something else then."""
    before, now = meta["batches"], _batches(run)
    if before != now:
        raise InputError(
            f"{workdir} was trained with {before['steps']} batches an epoch of (cases, tiles) "
            f"{before['shapes']}, which are {now['steps']} of {now['shapes']} on {run.mesh.size} devices: go "
            "on with as many devices as before (mesh.data), or choose another --workdir"
        )


def _batches(run: Run) -> dict[str, Any]:
    return {"steps": run.steps_per_epoch, "shapes": [list(shape) for shape in run.batches.plan.shapes]}


def _shards(mesh: Mesh) -> dict[str, Any]:
    """How batches are cut: cases for every device that holds some, loaded by this process's share."""
    return {"num_shards": partitioning.num_case_shards(mesh), "shard": partitioning.process_shard(mesh)}
