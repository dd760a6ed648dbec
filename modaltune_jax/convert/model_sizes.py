"""The sizes of a whole ModalTune model, from the shapes in its public checkpoint."""

from __future__ import annotations

import itertools

import numpy as np

from modaltune_jax.convert.slide_encoders import Shapes, count
from modaltune_jax.models.adapter import AdapterConfig
from modaltune_jax.models.encoders import EncoderConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModelConfig
from modaltune_jax.models.pathways import PathwayConfig
from modaltune_jax.types import TASKS, InputError


def model_sizes(shapes: Shapes, encoder: EncoderConfig) -> tuple[ModelConfig, ModalInputs]:
    """A config whose model has parameters of these shapes.

    As with `slide_encoders.sizes`, what shapes do not tell (heads, rates, which blocks make a stage, which
    genes a pathway has) stands for anything: enough to know where every tensor goes.

    Args:
      shapes: of the public tensors, by name.
      encoder: sizes of the encoder among them.

    Raises:
      InputError: a tensor that every such checkpoint has is missing.
    """
    try:
        return _model(shapes, encoder), _inputs(shapes)
    except KeyError as error:
        raise InputError(
            f"there is no tensor {error} among the {len(shapes)} of the file: this is no ModalTune checkpoint"
        ) from error


def group_sizes(shapes: Shapes) -> list[int]:
    """Genes per pathway."""
    networks = range(count(shapes, "gene_encoder.gene_networks"))
    return [shapes[f"gene_encoder.gene_networks.{g}.0.0.weight"][1] for g in networks]


def _inputs(shapes: Shapes) -> ModalInputs:
    clinical = shapes.get("clinical_mlp.0.weight", (0, 0))[1]
    return ModalInputs(tuple(np.arange(size) for size in group_sizes(shapes)), clinical)


def _model(shapes: Shapes, encoder: EncoderConfig) -> ModelConfig:
    clinical = ("clinical",) if "clinical_mlp.0.weight" in shapes else ()
    # A model of one task has no task token.
    num_tasks = shapes.get("task_weight.0.weight", (0, 1))[1]
    return ModelConfig(
        encoder=encoder,
        adapter=_adapter(shapes, encoder),
        pathways=_pathways(shapes),
        modalities=("slides", "expression", *clinical),
        tasks=TASKS[:num_tasks],
        expression_agg="cls" if "gene_cls" in shapes else "avg",
        fusion="sum" if shapes["final_norm.weight"][0] == encoder.width else "cat",
        embedding_dim=shapes["final_project.weight"][0],
    )


def _adapter(shapes: Shapes, encoder: EncoderConfig) -> AdapterConfig:
    num_stages = count(shapes, "interactions")
    first, last = "interactions.0.extractor", f"interactions.{num_stages - 1}.extra_extractors"
    edges = np.linspace(0, encoder.depth, num_stages + 1).astype(int).tolist()
    return AdapterConfig(
        stages=tuple(itertools.pairwise(edges)),
        attention_ratio=_share(shapes[f"{first}.attn.q_proj.weight"][0], encoder.width),
        num_heads=1,
        ffn_ratio=_share(shapes[f"{first}.ffn.linear1.weight"][0], encoder.width),
        num_extra_extractors=count(shapes, last),
        drop_path=0.0,
    )


def _pathways(shapes: Shapes) -> PathwayConfig:
    mixer = "gene_encoder.mlp_mixer"
    # Behind the blocks, which are pairs, the mixer's list ends with a norm and a linear layer.
    depth = sum(f"{mixer}.{i}.0.norm.weight" in shapes for i in range(count(shapes, mixer)))
    latent = shapes["gene_encoder.gene_networks.0.0.0.weight"][0]
    pathways, channels = shapes[f"{mixer}.0.0.fn.0.weight"][:2], shapes[f"{mixer}.0.1.fn.0.weight"]
    return PathwayConfig(
        latent_dim=latent,
        depth=depth,
        pathway_expansion=_share(*pathways),
        channel_expansion=_share(*channels),
        num_tokens=shapes["gene_encoder.pathway_compression.weight"][0],
        dropout=0.0,
    )


def _share(part: int, whole: int) -> float:
    """A share of `whole` that is `part` again when it is rounded down."""
    return (part + 0.5) / whole
