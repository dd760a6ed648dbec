"""Public ModalTune checkpoints as parameters of `ModalTune`, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modaltune_jax.convert import gigapath
from modaltune_jax.convert.rules import IDENTITY, TRANSPOSE, Gather, Params, Rename, Rule, Transform
from modaltune_jax.convert.rules import to_params as apply_rules
from modaltune_jax.convert.rules import to_tensors as invert_rules

# torch packs the query, key and value biases end to end; a 1x1 convolution has a trailing axis of one.
UNPACK_BIAS = Transform(lambda x: x.reshape(3, -1), lambda x: x.reshape(-1))
CONVOLUTION = Transform(lambda x: x[:, :, 0].T, lambda x: x.T[:, :, None])

_EXPRESSION = "modal_tokens.tokenisers.expression"
_NETWORKS = f"{_EXPRESSION}.encoder.networks"


def rules(
    group_sizes: Sequence[int],
    num_mixers: int,
    num_stages: int,
    encoder: Sequence[Rename] = gigapath.RULES,
) -> tuple[Rule, ...]:
    """The table of a model.

    Args:
      group_sizes: genes per pathway, for the little networks that are stacked here.
      num_mixers: depth of the pathway mixer.
      num_stages: stages of the adapter.
      encoder: the table of the slide encoder, `gigapath.RULES` or `titan.RULES`.
    """
    self_attention = [
        rule
        for stage in range(1, num_stages)
        for rule in _adapter(f"prompt_selfattention.{stage}", f"adapter.interactions.{stage}.self_attention")
    ]
    return (
        Rename("gene_pe", "modal_tokens.positions"),
        Rename("gene_cls", f"{_EXPRESSION}.cls"),
        *_linear("task_weight.0", "modal_tokens.task.fc"),
        *_norm("task_weight.1", "modal_tokens.task.norm"),
        *_linear("clinical_mlp.0", "modal_tokens.tokenisers.clinical.fc1"),
        *_linear("clinical_mlp.2", "modal_tokens.tokenisers.clinical.fc2"),
        *_norm("clinical_mlp.3", "modal_tokens.tokenisers.clinical.norm"),
        *_pathway_networks(group_sizes),
        *_mixer(num_mixers),
        *_linear("gene_encoder.pathway_compression", f"{_EXPRESSION}.encoder.compression"),
        *_linear("final_project", "fusion.project"),
        *_norm("final_norm", "fusion.norm"),
        *self_attention,
        *(
            rule
            for part in ("injector", "extractor", "extra_extractors.{n}")
            for rule in _adapter(f"interactions.{{i}}.{part}", f"adapter.interactions.{{i}}.{part}")
        ),
        # Last, because the encoder's public names have no prefix of their own.
        *(Rename(rule.name, f"encoder.{rule.path}", rule.transform) for rule in encoder),
    )


def to_params(tensors: Mapping[str, np.ndarray], abstract: Params, table: Sequence[Rule]) -> Params:
    """The public state dict as a pure dict of `ModalTune` parameters.

    Raises:
      InputError: a tensor without a place, a parameter without a tensor, a shape that differs.
    """
    return apply_rules(tensors, abstract, table)


def to_tensors(params: Params, table: Sequence[Rule]) -> Mapping[str, np.ndarray]:
    """The inverse of `to_params`, bit for bit."""
    return invert_rules(params, table)


def _linear(name: str, path: str) -> tuple[Rule, ...]:
    return (
        Rename(f"{name}.weight", f"{path}.kernel", TRANSPOSE),
        Rename(f"{name}.bias", f"{path}.bias"),
    )


def _norm(name: str, path: str) -> tuple[Rule, ...]:
    return (Rename(f"{name}.weight", f"{path}.scale"), Rename(f"{name}.bias", f"{path}.bias"))


def _adapter(name: str, path: str) -> tuple[Rule, ...]:
    """Every kind of leaf in the adapter; `{m}` is the place within it."""

    def rule(public: str, ours: str, transform: Transform = IDENTITY) -> Rule:
        return Rename(f"{name}.{{m}}{public}", f"{path}.{{m}}{ours}", transform)

    return (
        rule("gamma", "gamma"),
        rule("in_proj_bias", "in_proj_bias", UNPACK_BIAS),
        rule("_proj_weight", "_proj_weight", TRANSPOSE),
        rule("norm.weight", "norm.scale"),
        rule("norm_kq.weight", "norm_kq.scale"),
        rule(".weight", ".kernel", TRANSPOSE),
        rule(".bias", ".bias"),
    )


def _mixer(depth: int) -> tuple[Rule, ...]:
    name, path = "gene_encoder.mlp_mixer", f"{_EXPRESSION}.encoder"
    blocks = [
        rule
        for i in range(depth)
        for rule in (
            Rename(
                f"{name}.{i}.0.fn.0.weight", f"{path}.blocks.{i}.over_pathways.expand.kernel", CONVOLUTION
            ),
            Rename(f"{name}.{i}.0.fn.0.bias", f"{path}.blocks.{i}.over_pathways.expand.bias"),
            Rename(
                f"{name}.{i}.0.fn.3.weight", f"{path}.blocks.{i}.over_pathways.contract.kernel", CONVOLUTION
            ),
            Rename(f"{name}.{i}.0.fn.3.bias", f"{path}.blocks.{i}.over_pathways.contract.bias"),
            *_norm(f"{name}.{i}.0.norm", f"{path}.blocks.{i}.norm1"),
            *_linear(f"{name}.{i}.1.fn.0", f"{path}.blocks.{i}.over_channels.expand"),
            *_linear(f"{name}.{i}.1.fn.3", f"{path}.blocks.{i}.over_channels.contract"),
            *_norm(f"{name}.{i}.1.norm", f"{path}.blocks.{i}.norm2"),
        )
    ]
    return (
        *blocks,
        *_norm(f"{name}.{depth}", f"{path}.norm"),
        *_linear(f"{name}.{depth + 1}", f"{path}.proj"),
    )


def _pathway_networks(group_sizes: Sequence[int]) -> tuple[Rule, ...]:
    """The little networks: first layers joined along their genes, second layers stacked."""
    stops = np.cumsum(group_sizes)[:-1]

    def names(layer: int, leaf: str) -> list[str]:
        return [f"gene_encoder.gene_networks.{g}.{layer}.0.{leaf}" for g in range(len(group_sizes))]

    def gather(layer: int, leaf: str, path: str, join, split) -> Gather:
        keys = names(layer, leaf)

        def collect(tensors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
            return join([np.asarray(tensors[key]) for key in keys]), keys

        def spread(array: np.ndarray) -> dict[str, np.ndarray]:
            return dict(zip(keys, split(array), strict=True))

        return Gather(f"{_NETWORKS}.{path}", collect, spread)

    return (
        gather(
            0,
            "weight",
            "kernel1",
            lambda parts: np.concatenate([part.T for part in parts]),
            lambda array: [part.T for part in np.split(array, stops)],
        ),
        gather(0, "bias", "bias1", np.stack, list),
        gather(
            1,
            "weight",
            "kernel2",
            lambda parts: np.stack([part.T for part in parts]),
            lambda a: [m.T for m in a],
        ),
        gather(1, "bias", "bias2", np.stack, list),
    )
