"""BERT (Devlin et al. 2019): a post-norm transformer, read from a local Hugging Face folder without torch."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.types import InputError

WEIGHTS = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes, under the names of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float


class Block(nnx.Module):
    """Self-attention and GELU network, a LayerNorm after each residual sum."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        d, mlp = config.hidden_size, config.intermediate_size
        self.query = nnx.Linear(d, d, rngs=rngs)
        self.key = nnx.Linear(d, d, rngs=rngs)
        self.value = nnx.Linear(d, d, rngs=rngs)
        self.out = nnx.Linear(d, d, rngs=rngs)
        self.attention_norm = _layer_norm(config, rngs)
        self.fc1 = nnx.Linear(d, mlp, rngs=rngs)
        self.fc2 = nnx.Linear(mlp, d, rngs=rngs)
        self.mlp_norm = _layer_norm(config, rngs)
        self.num_heads = config.num_attention_heads

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        split = (*x.shape[:2], self.num_heads, -1)
        q, k, v = (linear(x).reshape(split) for linear in (self.query, self.key, self.value))
        attended = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :]).reshape(x.shape)
        x = self.attention_norm(x + self.out(attended))
        return self.mlp_norm(x + self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class Bert(nnx.Module):
    """Token ids to token vectors; no dropout, as the encoder is frozen."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        d = config.hidden_size
        self.word = nnx.Embed(config.vocab_size, d, rngs=rngs)
        self.position = nnx.Embed(config.max_position_embeddings, d, rngs=rngs)
        self.token_type = nnx.Embed(config.type_vocab_size, d, rngs=rngs)
        self.norm = _layer_norm(config, rngs)
        self.layers = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Ids of single sentences; positions where `mask` is False are padding and change nothing else."""
        x = self.word(ids) + self.position(jnp.arange(ids.shape[1])) + self.token_type(jnp.zeros(1, int))
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, use_fast_variance=False, rngs=rngs
    )


def load_bert(folder: Path) -> Bert:
    """A model with the weights of a Hugging Face folder (config.json, model.safetensors), in float32.

    Raises:
      InputError: a missing file, another architecture, or tensors that do not fit the model one to one.
    """
    config = read_config(folder / "config.json")
    graph, state = nnx.split(nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0))))
    path = folder / WEIGHTS
    tensors = _read_tensors(path)
    filled = []
    for parts, variable in nnx.to_flat_state(state):
        name = checkpoint_name(parts)
        if name not in tensors:
            raise InputError(f"{path}: tensor {name} is missing: the file holds no complete BERT encoder")
        array = tensors.pop(name)
        array = array.T if parts[-1] == "kernel" else array
        if array.shape != variable.shape:
            raise InputError(
                f"{path}: tensor {name} has shape {array.shape}, config.json wants {variable.shape}"
            )
        filled.append((parts, variable.replace(jnp.asarray(array, jnp.float32))))
    if tensors:
        raise InputError(
            f"{path}: tensor {min(tensors)} has no place in a BERT encoder ({len(tensors)} such)"
        )
    return nnx.merge(graph, nnx.from_flat_state(filled))


def read_config(path: Path) -> BertConfig:
    """Reads and checks a config.json.

    Raises:
      InputError: no such file, no BERT, or a variant of it that this module does not compute.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a text encoder is a folder with config.json, {WEIGHTS} and tokenizer.json "
            "of a BERT-family model, as `hf download <model> --local-dir <folder>` fetches it"
        )
    values = json.loads(path.read_text())
    supported = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, wanted in supported.items():
        if values.get(name, wanted) != wanted:
            raise InputError(f"{path}: {name} is {values[name]!r}, only {wanted!r} is supported")
    names = [field.name for field in dataclasses.fields(BertConfig)]
    missing = [name for name in names if name not in values]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: not the config.json of a BERT-family model")
    return BertConfig(**{name: values[name] for name in names})


# Our attribute -> the public checkpoint's module, outside and inside a block.
_MODULES = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_BLOCK_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}

# A counter, the head on the class token, and the pretraining heads: no part of the encoder.
_SKIPPED = re.compile(r"embeddings\.position_ids|pooler\.|cls\.")


def checkpoint_name(parts: tuple[Any, ...]) -> str:
    """Name of a parameter of `Bert`, given by its path, in a public checkpoint."""
    if parts[0] == "layers":
        module = f"encoder.layer.{parts[1]}.{_BLOCK_MODULES[parts[2]]}"
    else:
        module = _MODULES[parts[0]]
    return f"{module}.{_LEAVES[parts[-1]]}"


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of the encoder by current name: no `bert.` in front; weight and bias, not gamma and beta."""
    if not path.is_file():
        raise InputError(
            f"{path} is missing: pytorch_model.bin is not read, it can run code; get the model's {WEIGHTS}, "
            "or save the model again with transformers and torch, `model.save_pretrained(folder)`"
        )
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, framework="np") as file:
            for stored in file.keys():  # noqa: SIM118 (not a dict)
                name = stored.removeprefix("bert.")
                name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
                name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
                if not _SKIPPED.match(name):
                    tensors[name] = file.get_tensor(stored)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error
    return tensors
