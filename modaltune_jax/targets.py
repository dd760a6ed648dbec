"""Text targets: sentences, frozen encoder, frozen random projector (ModalTune, Ramanathan et al. 2025)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from modaltune_jax.inputs.prompts import task_sentences
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import Transforms, fit_transforms
from modaltune_jax.losses.combine import LossConfig
from modaltune_jax.models.text.base import TextEncoder
from modaltune_jax.supervision import Supervision, supervise
from modaltune_jax.types import InputError

if TYPE_CHECKING:
    from modaltune_jax.config import Config


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """How sentences become targets.

    Attributes:
      encoder: "minilm" (its PyPI package), a folder with a converted text encoder or with a BERT-family
        model, or a table of vectors computed elsewhere (`.npz`, `.parquet`).
      projector_seed: of the random projector.
      cache_dir: keeps text vectors between runs; `""` for no cache.
    """

    encoder: str
    projector_seed: int
    cache_dir: str


def load_encoder(name_or_path: str | Path) -> TextEncoder:
    """The text encoder of a config.

    Args:
      name_or_path: "minilm" (all-MiniLM-L6-v2 from its PyPI package), a folder that
        `modaltune_jax.convert` wrote (CONCH, TITAN, BERT), a folder with a BERT-family model as published, or
        a table of vectors (`.npz` or `.parquet`).

    Raises:
      InputError: none of these, or something about it is wrong.
    """
    from modaltune_jax.models.text.bert_encoder import BertEncoder, find_minilm
    from modaltune_jax.models.text.conch_encoder import ConchEncoder
    from modaltune_jax.models.text.folder import folder_kind, is_text_folder
    from modaltune_jax.models.text.table import TableEncoder

    if str(name_or_path) == "minilm":
        return BertEncoder(find_minilm())
    path = Path(name_or_path).expanduser()
    if path.suffix in (".npz", ".parquet"):
        return TableEncoder(path)
    if is_text_folder(path) and folder_kind(path) == "conch":
        return ConchEncoder(path)
    if path.is_dir():
        return BertEncoder(path)
    raise InputError(
        f"config.text.encoder = {str(name_or_path)!r} is neither 'minilm' nor an existing folder with a text "
        "encoder nor a table of text vectors (.npz, .parquet)"
    )


class Projector(NamedTuple):
    """Frozen random map from text vectors to targets: Linear, LayerNorm, ReLU, Linear.

    A checkpoint holds it, because every seed gives another target space.
    """

    kernel1: Float[np.ndarray, "d e"]
    bias1: Float[np.ndarray, "e"]
    scale: Float[np.ndarray, "e"]
    offset: Float[np.ndarray, "e"]
    kernel2: Float[np.ndarray, "e e"]
    bias2: Float[np.ndarray, "e"]

    @classmethod
    def init(cls, seed: int, in_dim: int, out_dim: int = 256) -> Projector:
        """Weights and biases uniform in ±1 / sqrt(inputs), as torch initialises linear layers."""
        rng = np.random.default_rng(seed)

        def uniform(fan_in: int, *shape: int) -> np.ndarray:
            return rng.uniform(-(fan_in**-0.5), fan_in**-0.5, shape).astype(np.float32)

        return cls(
            kernel1=uniform(in_dim, in_dim, out_dim),
            bias1=uniform(in_dim, out_dim),
            scale=np.ones(out_dim, np.float32),
            offset=np.zeros(out_dim, np.float32),
            kernel2=uniform(out_dim, out_dim, out_dim),
            bias2=uniform(out_dim, out_dim),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Projector:
        """The inverse of `to_dict`."""
        return cls(**{name: np.asarray(values[name], np.float32) for name in cls._fields})

    def to_dict(self) -> dict[str, np.ndarray]:
        return self._asdict()

    def __call__(self, text: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n e"]:
        """Targets in float32, computed in float64: they differ in the third decimal between cases."""
        hidden = text.astype(np.float64) @ self.kernel1 + self.bias1
        hidden -= hidden.mean(-1, keepdims=True)
        hidden /= np.sqrt(np.mean(hidden**2, -1, keepdims=True) + 1e-5)
        hidden = np.maximum(hidden * self.scale + self.offset, 0.0)
        return (hidden @ self.kernel2 + self.bias2).astype(np.float32)


def build_targets(
    sentences: Sequence[tuple[str, ...]],
    encoder: TextEncoder,
    projector: Projector,
    cache_dir: str | Path | None = None,
) -> Float[np.ndarray, "n t e"]:
    """Targets of cases from their sentences, one per task. Each distinct sentence is encoded once.

    Args:
      sentences: `[n][t]`, in task order.
      encoder: frozen text encoder.
      projector: takes the encoder's width.
      cache_dir: where vectors of the same sentences by the same encoder are kept; None or "" for nowhere.

    Raises:
      InputError: a projector for another width, or a damaged cache file.
    """
    if projector.kernel1.shape[0] != encoder.dim:
        raise InputError(
            f"the projector takes text vectors of width {projector.kernel1.shape[0]}, the text encoder gives "
            f"{encoder.dim}: use the text encoder that the projector was made for"
        )
    unique = sorted({sentence for case in sentences for sentence in case})
    targets = projector(_encode_cached(unique, encoder, cache_dir))
    rows = {sentence: row for row, sentence in enumerate(unique)}
    return targets[np.array([[rows[sentence] for sentence in case] for case in sentences], int)]


def _encode_cached(
    sentences: list[str], encoder: TextEncoder, cache_dir: str | Path | None
) -> Float[np.ndarray, "n d"]:
    if not cache_dir:
        return encoder.encode(sentences)
    key = hashlib.sha256(json.dumps([encoder.fingerprint, sentences]).encode()).hexdigest()
    path = Path(cache_dir).expanduser() / f"text-{key}.npz"
    if path.is_file():
        logging.info("text vectors from %s", path)
        return _read_vectors(path, (len(sentences), encoder.dim))
    vectors = encoder.encode(sentences)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, vectors=vectors)
    os.replace(temporary, path)
    return vectors


def _read_vectors(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "n d"]:
    try:
        # Opened here, as numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            vectors = arrays["vectors"]
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"the cache file {path} is damaged ({error}): delete it") from error
    if vectors.shape != shape:
        raise InputError(f"the cache file {path} holds shape {vectors.shape} instead of {shape}: delete it")
    return vectors


@dataclasses.dataclass(frozen=True)
class Targets:
    """The text targets of a data set, and what was fitted on its training cases to word them.

    Attributes:
      values: `[n, t, e]` float32, one row per case; without tasks where no loss reads text.
      transforms: survival bins of the sentences, and the standardisation of the inputs.
      projector: from text vectors to targets; None without.
      text_encoder: fingerprint of the text encoder; `""` without.
      supervision: what losses and heads know of the labels.
    """

    values: Float[np.ndarray, "n t e"]
    transforms: Transforms
    projector: Projector | None
    text_encoder: str
    supervision: Supervision

    def projector_arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of the projector."""
        return {} if self.projector is None else self.projector.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint notes to know its targets again, besides the projector's arrays."""
        return {
            "transforms": self.transforms.to_json(),
            "text_encoder": self.text_encoder,
            "supervision": self.supervision.to_dict(),
        }


def targets_of_records(
    records: Records,
    encoder: TextEncoder | None,
    config: TextConfig,
    loss: LossConfig,
    *,
    num_bins: int,
    bins: str,
    clinical: Sequence[str],
    dim: int,
) -> Targets:
    """Fits the transforms on train, words every case's sentences, embeds and projects them.

    Args:
      records: the cases.
      encoder: frozen text encoder; None where no term of the loss reads text.
      config: its settings and the projector's seed.
      loss: whose terms decide what there is to know of the labels.
      num_bins, bins, clinical: see `fit_transforms`.
      dim: width e of the targets.
    """
    transforms = fit_transforms(
        (records.without_slides(i) for i in range(records.num_cases)),
        num_bins=num_bins,
        bins=bins,
        clinical=clinical,
        kinds=records.variables,
    )
    supervision = supervise(records, encoder, loss)
    if encoder is None:
        return Targets(np.zeros((records.num_cases, 0, 0), np.float32), transforms, None, "", supervision)
    specs = {spec.name: spec for spec in records.specs}
    sites = records.table["site"]
    worded = [
        task_sentences(records.labels(i), specs[site], transforms.survival_edges.get(site))
        for i, site in enumerate(sites)
    ]
    projector = Projector.init(config.projector_seed, encoder.dim, dim)
    values = build_targets(worded, encoder, projector, config.cache_dir)
    return Targets(values, transforms, projector, encoder.fingerprint, supervision)


def targets_of_config(config: Config, records: Records) -> Targets:
    """`targets_of_records` by the settings of a config; a loss without text loads no text encoder."""
    return targets_of_records(
        records,
        load_encoder(config.text.encoder) if config.loss.reads_text else None,
        config.text,
        config.loss,
        num_bins=config.data.num_bins,
        bins=config.data.bins,
        clinical=config.data.clinical,
        dim=config.model.embedding_dim,
    )
