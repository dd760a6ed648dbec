"""The Prov-GigaPath slide encoder's public tensors as parameters of `LongNet`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modaltune_jax.convert import rules

RULES = (
    rules.Rename("cls_token", "cls_token"),
    rules.Rename("{module}norm.weight", "{module}norm.scale"),
    rules.Rename("{module}_ln.weight", "{module}_ln.scale"),
    rules.Rename("{module}.weight", "{module}.kernel", rules.TRANSPOSE),
    rules.Rename("{module}.bias", "{module}.bias"),
)
"""The modules carry the public names already; only kernels are stored the other way round."""


def to_params(tensors: Mapping[str, np.ndarray], abstract: rules.Params) -> rules.Params:
    """The public state dict, with or without a common prefix, as `LongNet` parameters.

    Args:
      tensors: the 247 tensors by name (12 layers), as under "model" in the public file.
      abstract: nested dict of shapes, e.g. `nnx.to_pure_dict` of an `nnx.eval_shape` model's state.

    Raises:
      InputError: names or shapes differ from the model's.
    """
    return rules.to_params(rules.strip_prefix(tensors, "cls_token"), abstract, RULES)


def to_tensors(params: rules.Params) -> Mapping[str, np.ndarray]:
    """`LongNet` parameters under their public names and in the public layout."""
    return rules.to_tensors(params, RULES)
