"""The TITAN slide encoder's public tensors as parameters of `Titan`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modaltune_jax.convert import rules

_BLOCK = "blocks.{i}."
_POOLERS = ("attn_pool.", "attn_pool_contrastive.")
_LINEARS = (
    "patch_embed.0",
    *(_BLOCK + name for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    *(pooler + "attn.out_proj" for pooler in _POOLERS),
)
_NORMS = (
    "norm",
    *(_BLOCK + name for name in ("norm1", "norm2")),
    *(pooler + name for pooler in _POOLERS for name in ("ln_q", "ln_k")),
)
_AS_THEY_ARE = (
    *("cls_token", "proj"),
    *(f"{module}.bias" for module in (*_LINEARS, *_NORMS)),
    *(pooler + name for pooler in _POOLERS for name in ("query", "attn.in_proj_bias")),
)


def _rule(name: str, path: str, transform: rules.Transform = rules.IDENTITY) -> rules.Rename:
    return rules.Rename(name.replace("blocks.", "blocks.modules_list."), path, transform)


RULES = (
    *(_rule(name, name) for name in _AS_THEY_ARE),
    *(_rule(f"{module}.weight", f"{module}.scale") for module in _NORMS),
    *(_rule(f"{module}.weight", f"{module}.kernel", rules.TRANSPOSE) for module in _LINEARS),
    *(_rule(name, name, rules.TRANSPOSE) for name in (pooler + "attn.in_proj_weight" for pooler in _POOLERS)),
)
"""The modules carry the public names already, but for one level; matrices lie the other way round."""


def to_params(tensors: Mapping[str, np.ndarray], abstract: rules.Params) -> rules.Params:
    """The public state dict, with or without a common prefix, as `Titan` parameters.

    Args:
      tensors: the 96 tensors of the slide encoder by name (6 blocks).
      abstract: nested dict of shapes, e.g. `nnx.to_pure_dict` of an `nnx.eval_shape` model's state.

    Raises:
      InputError: names or shapes differ from the model's.
    """
    return rules.to_params(rules.strip_prefix(tensors, "cls_token"), abstract, RULES)


def to_tensors(params: rules.Params) -> Mapping[str, np.ndarray]:
    """`Titan` parameters under their public names and in the public layout."""
    return rules.to_tensors(params, RULES)
