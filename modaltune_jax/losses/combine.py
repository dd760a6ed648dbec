"""Named loss terms, each a mean over the cases that have its label, combined into one number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.losses import discrete_hazard, distillation, text_similarity
from modaltune_jax.losses.cox import cox, is_known
from modaltune_jax.losses.cross_entropy import class_of, cross_entropy
from modaltune_jax.losses.ranking import comparable, ranking
from modaltune_jax.losses.risk_memory import RiskMemory
from modaltune_jax.models.heads import Predictions
from modaltune_jax.types import TASKS, Batch


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Embeddings towards the projected sentences, the published loss.

    Attributes:
      weight: factor of the term; 0 leaves it out.
      ramp_epochs: epochs in which the factor grows from 0; 0 for none.
      form: "kl" (published) or "cosine".
      temperature: of both softmaxes of "kl".
      scale: factor of the divergence, as published; with "cosine", of 1 - cosine.
      tasks: embeddings that it is taken on.
    """

    weight: float
    ramp_epochs: float
    form: str
    temperature: float
    scale: float
    tasks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CoxConfig:
    """Partial likelihood of the risk head.

    Attributes:
      weight: factor of the term; 0 leaves it out.
      ramp_epochs: epochs in which the factor grows from 0; 0 for none.
      ties: "efron" or "breslow".
      per_site: risk sets hold cases of one site only.
      memory: recent cases that join the risk sets of a batch; 0 for none. Fewer than the training
        cases of known survival.
    """

    weight: float
    ramp_epochs: float
    ties: str
    per_site: bool
    memory: int


@dataclasses.dataclass(frozen=True)
class DiscreteHazardConfig:
    """Likelihood of the hazard head, in bins of each site's own.

    Attributes:
      weight: factor of the term; 0 leaves it out.
      ramp_epochs: epochs in which the factor grows from 0; 0 for none.
      num_bins: bins, by quantiles of a site's uncensored training times.
      alpha: extra share of the uncensored cases (MCAT: 0.15 to 0.5).
    """

    weight: float
    ramp_epochs: float
    num_bins: int
    alpha: float


@dataclasses.dataclass(frozen=True)
class RankingConfig:
    """Order of the risk head's risks, pair by pair.

    Attributes:
      weight: factor of the term; 0 leaves it out.
      ramp_epochs: epochs in which the factor grows from 0; 0 for none.
      per_site: pairs are of one site only.
      scale: difference of log hazard ratios that counts as clear.
    """

    weight: float
    ramp_epochs: float
    per_site: bool
    scale: float


@dataclasses.dataclass(frozen=True)
class TextSimilarityConfig:
    """Cross entropy of the similarities to class prompts.

    Attributes:
      weight: factor of the term; 0 leaves it out.
      ramp_epochs: epochs in which the factor grows from 0; 0 for none.
      templates: sentences about a class, with CLASSNAME (or {}) in its place; a class is their mean.
      scope: a case is compared with the classes of its own "site", or with "all".
      is_balanced: classes weigh the same however many training cases they have.
      temperature: of the similarities, at least 0.01; 0 learns it, from 0.07.
    """

    weight: float
    ramp_epochs: float
    templates: tuple[str, ...]
    scope: str
    is_balanced: bool
    temperature: float


@dataclasses.dataclass(frozen=True)
class CrossEntropyConfig:
    """Cross entropy of the class head, among the classes of a case's own site.

    Attributes:
      weight: factor of the term; 0 leaves it out.
      ramp_epochs: epochs in which the factor grows from 0; 0 for none.
      is_balanced: classes weigh the same however many training cases they have.
    """

    weight: float
    ramp_epochs: float
    is_balanced: bool


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Terms of the loss.

    Attributes:
      uncertainty: learn the balance of the terms besides their weights (Kendall et al. 2018).
    """

    distillation: DistillationConfig
    cox: CoxConfig
    discrete_hazard: DiscreteHazardConfig
    ranking: RankingConfig
    text_similarity: TextSimilarityConfig
    cross_entropy: CrossEntropyConfig
    uncertainty: bool

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that count."""
        return tuple(name for name in TERMS if getattr(self, name).weight > 0)

    @property
    def reads_text(self) -> bool:
        """Whether a text encoder is needed."""
        return bool({"distillation", "text_similarity"} & set(self.terms))


class LabelSpace(NamedTuple):
    """What the losses on labels know of all labels, fitted on training cases; arrays may have no rows.

    Attributes:
      edges: `[s, c - 1]` interior edges of each site's survival bins, in months.
      bank: `[k, d]` a unit vector of text for each class of every site.
      class_site: `[k]` position of its site.
      class_weight: `[k]` of a case of the class, where classes are balanced.
    """

    edges: Float[Array | np.ndarray, "s edges"]
    bank: Float[Array | np.ndarray, "k d"]
    class_site: Int[Array | np.ndarray, "k"]
    class_weight: Float[Array | np.ndarray, "k"]


class Term(NamedTuple):
    """A loss on a batch: the sum of its values, and the number of cases (or deaths) it is the mean over."""

    total: Float[Array, ""]
    num: Float[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """0 for a batch without any."""
        return self.total / jnp.maximum(self.num, 1.0)


Objective = Callable[
    [Float[Array, "b t e"], Predictions, Batch, RiskMemory | None, Int[Array, ""]],
    tuple[Float[Array, ""], dict[str, Term], RiskMemory | None],
]


def make_objective(config: LossConfig, labels: LabelSpace, steps_per_epoch: int) -> Objective:
    """The loss of a batch.

    A case without the label of a term (no class, no follow-up) is left out of that term only; filler cases
    are left out of all. Everything is computed over the whole batch, whatever devices it lies on.

    Args:
      config: terms and weights.
      labels: classes and bins.
      steps_per_epoch: to know the epoch of a step.

    Returns:
      `(embedding, predictions, batch, memory, step) -> (loss, terms, memory)`. Without a memory, None.
    """

    def objective(embedding, predictions, batch, memory, step):
        space = jax.tree.map(jnp.asarray, labels)
        values = {
            name: TERMS[name](getattr(config, name), embedding, predictions, batch, space, memory)
            for name in config.terms
        }
        if memory is not None:
            memory = memory.push(*_survival(config.cox, predictions, batch), case=batch.index)
        total = jnp.zeros(())
        for name, term in values.items():
            value = term.mean
            if config.uncertainty:
                assert predictions.log_variance is not None
                log_variance = jnp.where(term.num > 0, predictions.log_variance[name], 0.0)
                value = jnp.exp(-log_variance) * value + log_variance
            total += _weight(getattr(config, name), step / steps_per_epoch) * value
        return total, values, memory

    return objective


def _weight(config, epoch: Float[Array, ""]) -> Float[Array, ""] | float:
    return (
        config.weight * jnp.minimum(epoch / config.ramp_epochs, 1.0) if config.ramp_epochs else config.weight
    )


def _survival(
    config: CoxConfig | RankingConfig, predictions: Predictions, batch: Batch
) -> tuple[Array, Array, Array, Array, Array]:
    """risk, time, event, strata, where."""
    assert predictions.risk is not None
    strata = batch.site if config.per_site else jnp.zeros_like(batch.site)
    return predictions.risk, batch.time, batch.event, strata, batch.weight > 0


def _distillation(config: DistillationConfig, embedding, predictions, batch, labels, memory) -> Term:
    rows = np.array([TASKS.index(task) for task in config.tasks]) if embedding.shape[1] > 1 else np.array([0])
    embedding, target, is_real = embedding[:, rows], batch.targets[:, rows], batch.weight > 0
    where = jnp.broadcast_to(is_real[:, None], embedding.shape[:2])
    if config.form == "kl":
        values = distillation.kl_to_text(
            embedding, target, where, temperature=config.temperature, scale=config.scale
        )
    else:
        values = distillation.cosine_to_text(embedding, target, where, scale=config.scale)
    return Term(jnp.sum(values * batch.weight), batch.weight.sum())


def _cox(config: CoxConfig, embedding, predictions, batch, labels, memory) -> Term:
    remembered = RiskMemory.empty(0) if memory is None else memory
    rows = remembered.join(*_survival(config, predictions, batch), case=batch.index)
    values = cox(rows.risk, rows.time, rows.event, rows.where, strata=rows.strata, ties=config.ties)
    known = is_known(rows.time, rows.event, rows.where)
    total, num = values.sum(), jnp.sum(known & (rows.event == 1)).astype(jnp.float32)
    if memory is not None:
        # Current cases alone get a gradient. Without this it would fade as the memory grows, and the term's
        # weight beside others with it; so it estimates the gradient of the mean over all rows.
        total = _with_gradient(total, known.sum() / jnp.maximum(known[len(remembered.risk) :].sum(), 1))
    return Term(total, num)


def _with_gradient(value: Float[Array, ""], factor: Float[Array, ""]) -> Float[Array, ""]:
    """The value, with `factor` times its gradient."""
    return factor * value - jax.lax.stop_gradient((factor - 1.0) * value)


def _ranking(config: RankingConfig, embedding, predictions, batch, labels, memory) -> Term:
    risk, time, event, strata, where = _survival(config, predictions, batch)
    values = ranking(risk, time, event, where, strata=strata, scale=config.scale)
    # Not by the values: those of pairs in clear order round to 0.
    outlived = jnp.any(comparable(time, event, where, strata=strata), axis=1)
    return Term(values.sum(), outlived.sum().astype(jnp.float32))


def _discrete_hazard(config: DiscreteHazardConfig, embedding, predictions, batch, labels, memory) -> Term:
    # As `discrete_hazard.bin_of`, with the edges of each case's own site.
    time_bin = jnp.sum(batch.time[:, None] >= labels.edges[batch.site], axis=1)
    known = is_known(batch.time, batch.event, batch.weight > 0)
    values = discrete_hazard.nll(predictions.hazard, time_bin, batch.event, known, alpha=config.alpha)
    return Term(values.sum(), known.sum().astype(jnp.float32))


def _text_similarity(config: TextSimilarityConfig, embedding, predictions, batch, labels, memory) -> Term:
    logits = similarity_logits(predictions, labels.bank)
    own = text_similarity.allowed_classes(batch.site, labels.class_site)
    known = _has_class(batch, labels)
    values = text_similarity.softmax_cross_entropy(
        logits,
        class_of(batch.site, batch.subtype, labels.class_site),
        known,
        allowed=own if config.scope == "site" else None,
        class_weight=labels.class_weight if config.is_balanced else None,
    )
    return Term(values.sum(), known.sum().astype(jnp.float32))


def _cross_entropy(config: CrossEntropyConfig, embedding, predictions, batch, labels, memory) -> Term:
    known = _has_class(batch, labels)
    values = cross_entropy(
        predictions.classes,
        batch.site,
        batch.subtype,
        labels.class_site,
        known,
        class_weight=labels.class_weight if config.is_balanced else None,
    )
    return Term(values.sum(), known.sum().astype(jnp.float32))


def _has_class(batch: Batch, labels: LabelSpace) -> Bool[Array, "b"]:
    return (class_of(batch.site, batch.subtype, jnp.asarray(labels.class_site)) >= 0) & (batch.weight > 0)


def similarity_logits(predictions: Predictions, bank: Float[Array, "k d"]) -> Float[Array, "b k"]:
    """Scaled cosines of every case to every class, of a model with a head for text."""
    assert predictions.text is not None
    assert predictions.log_scale is not None
    return text_similarity.similarity_logits(predictions.text, bank, predictions.log_scale)


TERMS: dict[str, Callable[..., Term]] = {
    "distillation": _distillation,
    "cox": _cox,
    "discrete_hazard": _discrete_hazard,
    "ranking": _ranking,
    "text_similarity": _text_similarity,
    "cross_entropy": _cross_entropy,
}
"""By the name that the config uses."""
