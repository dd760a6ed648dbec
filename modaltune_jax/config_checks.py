"""What the types of a config cannot say: ranges, words, and keys that must agree."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modaltune_jax.class_bank import prompts_from_templates
from modaltune_jax.models.baselines.baseline import BaselineModelConfig
from modaltune_jax.models.encoders.titan import TitanConfig
from modaltune_jax.types import MODALITIES, TASKS, InputError

_TERMS = ("distillation", "cox", "discrete_hazard", "ranking", "text_similarity", "cross_entropy")
_POSITIVE = (
    *(
        "data.num_bins",
        "loss.distillation.temperature",
        "loss.distillation.scale",
        "loss.ranking.scale",
        "optim.learning_rate",
        "optim.accumulate_steps",
    ),
    *("checkpoint.every_epochs", "checkpoint.grace_seconds", "checkpoint.keep", "model.in_dim"),
)
_NOT_NEGATIVE = (
    *("text.projector_seed", "optim.weight_decay", "optim.warmup_epochs", "optim.warmup_start"),
    *("optim.max_grad_norm", "optim.epochs"),
    *("data.simulation.noise", "loss.cox.memory", "loss.text_similarity.temperature"),
    "checkpoint.every_minutes",
    *(f"loss.{term}.{key}" for term in _TERMS for key in ("weight", "ramp_epochs")),
)
_BELOW_ONE = (
    *("optim.b1", "optim.b2"),
    "loss.discrete_hazard.alpha",
    *("data.simulation.missing_expression", "data.simulation.missing_slides"),
)
_WORDS = {
    "data.bins": ("train", "reference"),
    "encoder_weights.init": ("file", "random"),
    "loss.cox.ties": ("efron", "breslow"),
    "loss.distillation.form": ("kl", "cosine"),
    "loss.text_similarity.scope": ("site", "all"),
}
_MODALTUNE_POSITIVE = (
    *("model.embedding_dim", "model.encoder.width", "model.encoder.depth"),
    *("model.adapter.attention_ratio", "model.adapter.num_heads", "model.adapter.ffn_ratio"),
    *("model.pathways.latent_dim", "model.pathways.num_tokens"),
    *("model.pathways.pathway_expansion", "model.pathways.channel_expansion"),
)
_MODALTUNE_NOT_NEGATIVE = ("model.adapter.num_extra_extractors", "model.pathways.depth")
_MODALTUNE_BELOW_ONE = ("model.adapter.drop_path", "model.pathways.dropout")
_MODALTUNE_WORDS = {"model.expression_agg": ("avg", "cls"), "model.fusion": ("sum", "cat")}
_SELECTION = ("subtype", "survival", "site")
_HEADS = {
    "survival:risk": ("cox", "ranking"),
    "survival:hazard": ("discrete_hazard",),
    "subtype:classes": ("cross_entropy",),
    "subtype:similarity": ("text_similarity",),
}


def check(config: Any) -> None:
    """Checks a whole `config.Config`.

    Raises:
      InputError: the first value that cannot work, with its key.
    """
    _check_ranges(config, _POSITIVE, _NOT_NEGATIVE, _BELOW_ONE, _WORDS)
    if isinstance(config.model, BaselineModelConfig):
        _check_baseline(config)
    else:
        _check_ranges(
            config, _MODALTUNE_POSITIVE, _MODALTUNE_NOT_NEGATIVE, _MODALTUNE_BELOW_ONE, _MODALTUNE_WORDS
        )
        _check_modaltune(config.model)
    _check_loss(config.loss)
    _check_runs(config)
    _check_training(config)
    _check_mesh(config)


def _check_ranges(
    config: Any,
    positive: Sequence[str],
    not_negative: Sequence[str],
    below_one: Sequence[str],
    words: Mapping[str, Sequence[str]],
) -> None:
    for keys, is_right, wanted in (
        (positive, lambda value: value > 0, "positive"),
        (not_negative, lambda value: value >= 0, "0 or more"),
        (below_one, lambda value: 0 <= value < 1, "at least 0 and below 1"),
    ):
        for key in keys:
            value = _value(config, key)
            if not is_right(value) or not math.isfinite(value):
                raise InputError(f"config.{key} is {value}; it must be {wanted}")
    for key, known in words.items():
        if _value(config, key) not in known:
            raise InputError(f"config.{key} is {_value(config, key)!r}; it must be one of {', '.join(known)}")


def _check_runs(config: Any) -> None:
    seeds, names = config.seeds, [name for name, _ in config.compare]
    if not config.name:
        raise InputError("config.name is empty; it names the folder of the results")
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32 or _repeats(seeds):
        raise InputError(
            f"config.seeds is {seeds}; it must name one or more different numbers from 0 to 2^32 - 1"
        )
    if not names or _repeats(names):
        raise InputError(f"config.compare has the variants {names}; it must name one or more, each once")
    for name, modalities in config.compare:
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            raise InputError(
                f"config.compare: {name!r} cannot be the name of a folder; use letters, digits, _"
            )
        unknown = [modality for modality in modalities if modality not in config.model.modalities]
        if unknown or not modalities:
            raise InputError(
                f"config.compare: variant {name!r} shows the modalities {modalities}; they must be one or "
                f"more of config.model.modalities, {config.model.modalities}; {_alike(config)}"
            )
    if config.pipeline.modalities != config.model.modalities:
        raise InputError(
            f"config.pipeline.modalities is {config.pipeline.modalities} and config.model.modalities is "
            f"{config.model.modalities}; {_alike(config)}"
        )


def _alike(config: Any) -> str:
    """How to give model, batches and variants the same modalities."""
    return "three settings go together: " + modality_flags(config.model.modalities)


def modality_flags(modalities: Sequence[str]) -> str:
    """The overrides by which a model is made for, trained with and shown these modalities."""
    shown = ",".join(modalities)
    return (
        f"--config.model.modalities={shown} --config.pipeline.modalities={shown} "
        f"--config.compare=\"(('full',{tuple(modalities)}),)\""
    )


def _check_baseline(config: Any) -> None:
    model = config.model
    if model.encoder is not None and model.encoder.in_dim != model.in_dim:
        raise InputError(
            f"config.model.in_dim is {model.in_dim}, but config.model.sizes.encoder.in_dim is "
            f"{model.encoder.in_dim}; both are the width of a tile feature"
        )
    if config.loss.reads_text:
        raise InputError(
            "config.loss.distillation and config.loss.text_similarity are for ModalTune; a baseline learns "
            "from labels: set their weights to 0"
        )
    if config.mesh.sequence > 1:
        raise InputError(
            f"config.mesh.sequence is {config.mesh.sequence}, but a baseline sees whole bags: set it to 1"
        )


def _check_modaltune(model: Any) -> None:
    if set(model.modalities) - set(MODALITIES) or _repeats(model.modalities) or not model.modalities:
        raise InputError(f"config.model.modalities is {model.modalities}; it must be some of {MODALITIES}")
    if model.tasks != TASKS:
        raise InputError(f"config.model.tasks is {model.tasks}; sentences and probes are made for {TASKS}")
    stages, depth = model.adapter.stages, model.encoder.depth
    edges = [0, *(stop for _, stop in stages)]
    if [start for start, _ in stages] != edges[:-1] or edges[-1] != depth or edges != sorted(edges):
        raise InputError(
            f"config.model.adapter.stages is {stages}; they must go from block 0 to model.encoder.depth="
            f"{depth}, each from where the one before stops"
        )
    _check_share("adapter.ffn_ratio", model.adapter.ffn_ratio, model.encoder.width)
    _check_share("pathways.channel_expansion", model.pathways.channel_expansion, model.pathways.latent_dim)
    inner = _check_share("adapter.attention_ratio", model.adapter.attention_ratio, model.encoder.width)
    if inner % model.adapter.num_heads:
        raise InputError(
            f"config.model.adapter.attention_ratio={model.adapter.attention_ratio} makes {inner} "
            f"values, which must be a multiple of num_heads {model.adapter.num_heads}"
        )


def _check_share(key: str, share: float, width: int) -> int:
    if int(width * share) < 1:
        raise InputError(f"config.model.{key} is {share}, which leaves nothing of width {width}; raise it")
    return int(width * share)


def _check_training(config: Any) -> None:
    optim, best = config.optim, config.checkpoint.best
    if config.loss.terms and not optim.epochs:
        raise InputError("config.optim.epochs is 0; it must be positive, or the weights of all losses be 0")
    if optim.epochs and optim.warmup_epochs >= optim.epochs:
        raise InputError(
            f"config.optim.warmup_epochs is {optim.warmup_epochs}, which leaves no epoch for the decay; it "
            f"must be smaller than optim.epochs={optim.epochs}"
        )
    for pattern, _ in optim.rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"config.optim.rules: {pattern!r} is no regular expression ({error})") from error
    active = config.loss.terms
    if optim.epochs and not active:
        raise InputError(
            f"config.loss has no term: give one of {', '.join(_TERMS)} a weight above 0, or set "
            "optim.epochs=0 to probe the model as it is"
        )
    heads = [head for head, terms in _HEADS.items() if set(terms) & set(active)]
    for head in set(best) & set(_HEADS) - set(heads):
        raise InputError(
            f"config.checkpoint.best is {best}, but no loss trains the head of {head}: give "
            f"{' or '.join(f'loss.{term}' for term in _HEADS[head])} a weight above 0"
        )
    known = (*_SELECTION, *heads)
    if best != ("last",) and (not best or set(best) - set(known)):
        raise InputError(f"config.checkpoint.best is {best}; it must be ('last',) or some of {known}")


def _check_mesh(config: Any) -> None:
    if config.mesh.sequence > 1 and isinstance(config.model.encoder, TitanConfig):
        raise InputError(
            f"config.mesh.sequence is {config.mesh.sequence}, but every tile of TITAN attends to every "
            "other, which would be gathered on each device: set it to 1 and use mesh.data and mesh.fsdp"
        )


def _check_loss(loss: Any) -> None:
    if loss.discrete_hazard.num_bins < 2:
        raise InputError(
            f"config.loss.discrete_hazard.num_bins is {loss.discrete_hazard.num_bins}; it must be 2 or more"
        )
    # Similarities are scaled by 100 at most.
    if 0 < (temperature := loss.text_similarity.temperature) < 0.01:
        raise InputError(
            f"config.loss.text_similarity.temperature is {temperature}; it must be 0.01 or more, or 0 to "
            "learn it"
        )
    try:
        prompts_from_templates({"class": ("name",)}, loss.text_similarity.templates)
    except InputError as error:
        raise InputError(f"config.loss.text_similarity.templates: {error}") from error
    tasks = loss.distillation.tasks
    if not tasks or set(tasks) - set(TASKS) or _repeats(tasks):
        raise InputError(f"config.loss.distillation.tasks is {tasks}; it must be some of {TASKS}")
    if loss.cox.memory and not loss.cox.weight:
        raise InputError(
            "config.loss.cox.memory remembers risks that no loss.cox.weight asks for: set it to 0"
        )


def _value(config: Any, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)


def _repeats(values: Iterable[Any]) -> bool:
    values = list(values)
    return len(set(values)) < len(values)
