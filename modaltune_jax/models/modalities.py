"""Modal tokens: every non-image input of a case as a few tokens with a presence mask.

ModalTune (Ramanathan et al. 2025), modal tokens. A new modality is one class below with an entry in
`TOKENISERS`, a column in `types.MODALITIES` and a field of `Batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.layers import TRUNC_NORMAL, layer_norm, linear
from modaltune_jax.models.pathways import PathwayConfig, PathwayEncoder
from modaltune_jax.models.regularisation import fold
from modaltune_jax.types import MODALITIES, Batch


class ModalInputs(NamedTuple):
    """Sizes that come from the data set rather than from a config.

    Attributes:
      gene_groups: gene indices of each pathway.
      num_clinical: number of clinical values k.
      num_genes: number of expression values, for models that see more of them than the pathways hold.
    """

    gene_groups: tuple[np.ndarray, ...]
    num_clinical: int
    num_genes: int = 0


@runtime_checkable
class Tokeniser(Protocol):
    """Turns one modality of a batch into `num_tokens` tokens, and its tokens back into one vector."""

    num_tokens: int

    def __call__(self, values: Float[Array, "b k"], key: jax.Array | None) -> Float[Array, "b n d"]: ...

    def summary(self, tokens: Float[Array, "b t n d"]) -> Float[Array, "b t d"]: ...


class ClinicalToken(nnx.Module):
    """Clinical values to one token: Linear, ReLU, Linear, LayerNorm."""

    num_tokens = 1

    def __init__(self, num_values: int, dim: int, *, rngs: nnx.Rngs):
        self.fc1 = linear(num_values, dim // 2, rngs=rngs)
        self.fc2 = linear(dim // 2, dim, rngs=rngs)
        self.norm = layer_norm(dim, rngs=rngs)

    def __call__(self, values: Float[Array, "b k"], key: jax.Array | None = None) -> Float[Array, "b 1 d"]:
        del key  # nothing random in this one
        return self.norm(self.fc2(jax.nn.relu(self.fc1(values))))[:, None]

    def summary(self, tokens: Float[Array, "b t 1 d"]) -> Float[Array, "b t d"]:
        return tokens[:, :, 0]


class ExpressionTokens(nnx.Module):
    """Pathway tokens; `agg="cls"` puts one more learned token in front that stands for them all."""

    def __init__(
        self, groups: tuple[np.ndarray, ...], dim: int, agg: str, config: PathwayConfig, *, rngs: nnx.Rngs
    ):
        if agg not in ("avg", "cls"):
            raise ValueError(f'expression_agg is "avg" or "cls", not {agg!r}')
        self.encoder = PathwayEncoder(groups, dim, config, rngs=rngs)
        self.cls = nnx.Param(TRUNC_NORMAL(rngs.params(), (1, 1, dim))) if agg == "cls" else None
        self.num_tokens = config.num_tokens + (agg == "cls")

    def __call__(self, values: Float[Array, "b k"], key: jax.Array | None = None) -> Float[Array, "b n d"]:
        tokens = self.encoder(values, key)
        if self.cls is None:
            return tokens
        cls = jnp.broadcast_to(self.cls[...], (tokens.shape[0], 1, tokens.shape[2]))
        return jnp.concatenate([cls, tokens], axis=1)

    def summary(self, tokens: Float[Array, "b t n d"]) -> Float[Array, "b t d"]:
        return tokens.mean(axis=2) if self.cls is None else tokens[:, :, 0]


class TaskTokens(nnx.Module):
    """One token a task: LayerNorm(Linear(one_hot(task)))."""

    num_tokens = 1

    def __init__(self, num_tasks: int, dim: int, *, rngs: nnx.Rngs):
        self.fc = linear(num_tasks, dim, rngs=rngs)
        self.norm = layer_norm(dim, rngs=rngs)

    def __call__(self) -> Float[Array, "t d"]:
        return self.norm(self.fc(jnp.eye(self.fc.in_features)))


def _clinical(inputs: ModalInputs, dim: int, config, rngs: nnx.Rngs) -> ClinicalToken:
    return ClinicalToken(inputs.num_clinical, dim, rngs=rngs)


def _expression(inputs: ModalInputs, dim: int, config, rngs: nnx.Rngs) -> ExpressionTokens:
    return ExpressionTokens(inputs.gene_groups, dim, config.expression_agg, config.pathways, rngs=rngs)


TOKENISERS: dict[str, Callable[..., Tokeniser]] = {"clinical": _clinical, "expression": _expression}


class ModalTokens(nnx.Module):
    """All modal tokens of a case, `[clinical | task | expression]`, with their learned positions.

    Args:
      inputs: sizes from the data.
      dim: width d.
      config: the model's config: `tasks`, `modalities`, `expression_agg`, `pathways`.
    """

    def __init__(self, inputs: ModalInputs, dim: int, config, *, rngs: nnx.Rngs):
        self.num_tasks = len(config.tasks)
        self.tokenisers = nnx.Dict(
            {
                name: TOKENISERS[name](inputs, dim, config, rngs)
                for name in config.modalities
                if name != "slides"
            }
        )
        # A model of one task has nothing to tell apart and no task token.
        self.task = TaskTokens(self.num_tasks, dim, rngs=rngs) if self.num_tasks > 1 else None
        before = ["clinical"] if "clinical" in self.tokenisers else []
        after = [name for name in self.tokenisers if name != "clinical"]
        self.order = (*before, *(["task"] if self.task else []), *after)
        sizes = [1 if name == "task" else self.tokenisers[name].num_tokens for name in self.order]
        stops = np.cumsum(sizes).tolist()
        self.spans = tuple(zip([0, *stops], stops, strict=False))
        self.positions = nnx.Param(TRUNC_NORMAL(rngs.params(), (sum(sizes), dim)))

    def __call__(
        self, batch: Batch, key: jax.Array | None = None
    ) -> tuple[Float[Array, "b t m d"], Bool[Array, "b m"]]:
        """The tokens of each task, and which of them the case has."""
        num_cases, dim = batch.present.shape[0], self.positions.shape[-1]
        tokens, masks = [], []
        for i, name in enumerate(self.order):
            if self.task is not None and name == "task":
                part = jnp.broadcast_to(self.task()[None, :, None], (num_cases, self.num_tasks, 1, dim))
                present = jnp.ones(num_cases, bool)
            else:
                part = self.tokenisers[name](getattr(batch, name), fold(key, i))
                part = jnp.broadcast_to(part[:, None], (num_cases, self.num_tasks, *part.shape[1:]))
                present = batch.present[:, MODALITIES.index(name)]
            tokens.append(part)
            masks.append(jnp.broadcast_to(present[:, None], (num_cases, part.shape[2])))
        return jnp.concatenate(tokens, axis=2), jnp.concatenate(masks, axis=1)

    def summaries(
        self, tokens: Float[Array, "b t m d"], mask: Bool[Array, "b m"]
    ) -> dict[str, Float[Array, "b t d"]]:
        """One vector a modality, in the order of fusion (task, expression, clinical); 0 where absent."""
        vectors = {}
        for name, (start, stop) in zip(self.order, self.spans, strict=True):
            part = tokens[:, :, start:stop]
            vector = part[:, :, 0] if name == "task" else self.tokenisers[name].summary(part)
            vectors[name] = jnp.where(mask[:, start, None, None], vector, 0.0)
        clinical_last = sorted(vectors, key=lambda name: name == "clinical")
        return {name: vectors[name] for name in clinical_last}
