"""The text towers of CONCH and TITAN as parameters of `ConchText`, and as folders of text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from modaltune_jax.convert import param_file, rules
from modaltune_jax.convert.report import Report
from modaltune_jax.convert.tensor_file import TensorFile, open_tensors
from modaltune_jax.convert.text_encoder import write
from modaltune_jax.models.text.conch import ConchTextConfig
from modaltune_jax.models.text.conch_tokenizer import ConchTokenizer
from modaltune_jax.models.text.folder import TextFolder, layout
from modaltune_jax.models.text.tokenizer import read_tokenizer
from modaltune_jax.types import InputError

HEAD_DIM = 64
"""Width of an attention head in the published models; the shapes of the tensors do not tell it."""

PREFIXES = {"CONCH": "text.", "TITAN": "text_encoder."}
"""What stands before the names of the text tower in the published files."""

EXTRAS = (rules.Skip("attn_mask", "of the causal mask"),)
"""What the text tower holds besides parameters. Whatever has another prefix is another part of the model."""

RULES: tuple[rules.Rule, ...] = (
    rules.Rename("token_embedding.weight", "token_embedding.embedding"),
    *(rules.Rename(name, name) for name in ("positional_embedding", "cls_emb", "text_projection")),
    rules.Rename("{module}ln_{n}.weight", "{module}ln_{n}.scale"),
    rules.Rename("{module}.in_proj_weight", "{module}.in_proj_weight", rules.TRANSPOSE),
    rules.Rename("{module}.in_proj_bias", "{module}.in_proj_bias"),
    rules.Rename("{module}_proj.weight", "{module}_proj.kernel", rules.TRANSPOSE),
    rules.Rename("{module}c_fc.weight", "{module}c_fc.kernel", rules.TRANSPOSE),
    rules.Rename("{module}.bias", "{module}.bias"),
    *EXTRAS,
)
"""The modules carry the public names already; only kernels are stored the other way round."""


def to_params(tensors: Mapping[str, np.ndarray], config: ConchTextConfig) -> rules.Params:
    """The tensors of a text tower, without prefix, as `ConchText` parameters.

    Raises:
      InputError: names or shapes differ from the model's.
    """
    return rules.to_params(tensors, layout(config)[1], RULES)


def to_tensors(params: rules.Params) -> Mapping[str, np.ndarray]:
    """`ConchText` parameters under their public names, without prefix, and in the public layout."""
    return rules.to_tensors(params, RULES)


def sizes(
    shapes: Mapping[str, tuple[int, ...]], *, num_heads: int | None = None, pad_id: int = 0
) -> ConchTextConfig:
    """The config whose parameters have these shapes.

    Args:
      shapes: of the text tower's tensors, without prefix.
      num_heads: None for heads of width 64, as published.
      pad_id: of the tokenizer.

    Raises:
      InputError: a tensor that every text tower has is missing.
    """
    try:
        vocab_size, width = shapes["token_embedding.weight"]
        return ConchTextConfig(
            vocab_size=vocab_size,
            context_length=shapes["positional_embedding"][0],
            width=width,
            depth=sum(name.endswith(".ln_1.weight") for name in shapes),
            num_heads=width // HEAD_DIM if num_heads is None else num_heads,
            ffn_dim=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
            out_dim=shapes["text_projection"][1],
            pad_id=pad_id,
        )
    except KeyError as error:
        raise InputError(f"there is no tensor {error}: this is no CONCH text tower") from error


def convert(
    source: Path,
    folder: Path,
    *,
    tokenizer: Path,
    prefix: str = PREFIXES["CONCH"],
    num_heads: int | None = None,
) -> Report:
    """Writes the text tower of a published file as the folder of a text encoder.

    Args:
      source: CONCH's pytorch_model.bin, TITAN's model.safetensors, or a file of the same layout.
      folder: the folder to write; an older text encoder in it is replaced.
      tokenizer: the published tokenizer, a JSON file.
      prefix: of the text tower's tensors, see `PREFIXES`.
      num_heads: None for heads of width 64, as published.

    Raises:
      InputError: the file is damaged or holds no such text tower, the tokenizer is another's, or `folder`
        holds something else.
    """
    text = read_tokenizer(tokenizer)
    ids = ConchTokenizer(text, tokenizer)
    with open_tensors(source) as file:
        tower = _tower(file, prefix)
        try:
            shapes = {name: file.shapes[stored] for name, stored in tower.names.items()}
            config = sizes(shapes, num_heads=num_heads, pad_id=ids.pad_id)
            params = to_params(tower, config)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        skipped = {name: f"of {name.split('.')[0]}" for name in file if not name.startswith(prefix)}
        skipped |= {f"{prefix}{name}": reason for name, reason in rules.skipped(tower, EXTRAS).items()}
        num_tensors = len(file)
    ids.check(config)
    stored = TextFolder(
        kind="conch",
        config=config,
        params=params,
        sha256=param_file.fingerprint(params),
        tokenizer=text,
        pooling="cls",
        unit_norm=True,
        source={"prefix": prefix},
    )
    what = f"CONCH text tower, {config.depth} blocks of width {config.width}, vectors of {config.out_dim}"
    return write(folder, stored, source=source, what=what, num_tensors=num_tensors, skipped=skipped)


def _tower(file: TensorFile, prefix: str) -> rules.Renamed:
    """The tensors below a prefix, without it."""
    names = {name.removeprefix(prefix): name for name in file if name.startswith(prefix)}
    if not names:
        known = "CONCH's is 'text.' (--from conch), TITAN's is 'text_encoder.' (--from titan-text)"
        parts = ", ".join(sorted({name.split(".")[0] for name in file})[:8])
        raise InputError(
            f"{file.path} has no tensor whose name begins with {prefix!r}, only {parts}: give the prefix of "
            f"its text tower, {known}"
        )
    return rules.Renamed(file, names)
