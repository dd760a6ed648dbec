"""Who trains, and how: the trainable mask, the schedule, the optimizer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax import traverse_util

from modaltune_jax.accumulation import accumulate
from modaltune_jax.types import InputError

Params = dict[str, Any]
"""Nested dict of arrays, as `nnx.to_pure_dict` gives."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay.

    Attributes:
      learning_rate: peak, reached at the end of the warm-up. Published for one case a step; AdamW wants it
        times the square root of the cases of an update.
      weight_decay: decoupled, on every trainable parameter as published.
      b1, b2: moment decays.
      epochs: length of the schedule; 0 trains nothing, for models that are probed as they are.
      warmup_epochs: linear warm-up from `warmup_start * learning_rate`.
      warmup_start: fraction of the peak at step 0.
      max_grad_norm: global-norm clipping; 0 switches it off (published).
      accumulate_steps: batches that make one update, by the mean of their gradients over all their cases.
      rules: `(pattern, "train" | "freeze")`; the first pattern found in a parameter's path decides,
        and every parameter must be decided.
    """

    learning_rate: float
    weight_decay: float
    b1: float
    b2: float
    epochs: int
    warmup_epochs: int
    warmup_start: float
    max_grad_norm: float
    accumulate_steps: int
    rules: tuple[tuple[str, str], ...]


def schedule(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by update: linear warm-up, then cosine to zero at the last epoch.

    Args:
      config: rates and epochs.
      steps_per_epoch: batches in an epoch.

    Raises:
      InputError: no update is left for the cosine.
    """
    if config.epochs == 0:
        return optax.constant_schedule(0.0)
    if config.warmup_epochs >= config.epochs:
        raise InputError(
            f"optim.warmup_epochs={config.warmup_epochs} leaves no epoch for the cosine: it must be smaller "
            f"than optim.epochs={config.epochs}"
        )
    num_batches = config.epochs * steps_per_epoch
    num_updates = num_batches // config.accumulate_steps
    num_warmup = config.warmup_epochs * steps_per_epoch // config.accumulate_steps
    if num_updates <= num_warmup:
        raise InputError(
            f"optim.accumulate_steps={config.accumulate_steps} makes {num_updates} updates of the "
            f"{num_batches} batches that training has, {num_warmup} of them warm-up: make it smaller"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate * config.warmup_start,
        peak_value=config.learning_rate,
        warmup_steps=num_warmup,
        decay_steps=num_updates,
    )


def make_optimizer(config: OptimConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of the trainable parameters; frozen ones never reach it.

    With `accumulate_steps` its update takes `num_cases`, see `accumulation.accumulate`.
    """
    optimizer = optax.adamw(
        schedule(config, steps_per_epoch), b1=config.b1, b2=config.b2, weight_decay=config.weight_decay
    )
    if config.max_grad_norm > 0:
        optimizer = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optimizer)
    return accumulate(optimizer, config.accumulate_steps) if config.accumulate_steps > 1 else optimizer


def path_name(path: tuple) -> str:
    """`("encoder", "layers", 0, "kernel")` to `"encoder/layers/0/kernel"`."""
    return "/".join(str(part) for part in path)


def split_params(params: Params, rules: tuple[tuple[str, str], ...]) -> tuple[Params, Params]:
    """Parts the parameters into (trainable, frozen) by `OptimConfig.rules`.

    Raises:
      InputError: a parameter that no pattern covers, a pattern that covers nothing, or a decision
        other than "train" and "freeze".
    """
    parts: dict[str, dict[tuple, jax.Array]] = {"train": {}, "freeze": {}}
    used = set()
    for path, value in traverse_util.flatten_dict(params).items():
        rule = next((rule for rule in rules if re.search(rule[0], path_name(path))), None)
        if rule is None:
            raise InputError(
                f'optim.rules decides nothing about parameter "{path_name(path)}": add a pattern for it'
            )
        if rule[1] not in parts:
            raise InputError(f'optim.rules: {rule[0]!r} says {rule[1]!r}; it must say "train" or "freeze"')
        parts[rule[1]][path] = value
        used.add(rule)
    for rule in rules:
        if rule not in used:
            raise InputError(
                f"optim.rules: pattern {rule[0]!r} decides about no parameter: mend or remove it"
            )
    return traverse_util.unflatten_dict(parts["train"]), traverse_util.unflatten_dict(parts["freeze"])


def merge_params(trainable: Params, frozen: Params) -> Params:
    """The inverse of `split_params`."""
    flat: Mapping[tuple, Any] = {
        **traverse_util.flatten_dict(trainable),
        **traverse_util.flatten_dict(frozen),
    }
    return traverse_util.unflatten_dict(flat)


def count(params: Params) -> int:
    """Number of values in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
