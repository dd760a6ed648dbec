"""An experiment small enough for tests: simulated records, text vectors from a table, tiny sizes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import common
from modaltune_jax.class_bank import prompts_from_templates
from modaltune_jax.config import Config, unpack
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.inputs.prompts import task_sentences
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import fit_transforms
from modaltune_jax.targets import Targets, load_encoder, targets_of_records

SIMULATION = {
    "cases_per_site": 20,
    "feature_dim": 12,
    "num_genes": 40,
    "num_pathways": 5,
    "mean_tiles": 14,
    "noise": 0.5,
}


def config_dict(folder: Path, encoder: str = "longnet") -> ConfigDict:
    """The defaults, shrunk; writes records and text vectors below `folder` on first use."""
    config = common.get_config()
    shrink(config, encoder)
    config.name = "tiny"
    config.data.source = "simulation"
    config.data.directory = str(folder / "records")
    config.data.simulation.update(SIMULATION)
    config.data.num_bins = 2
    config.text.update({"encoder": str(folder / "sentences.npz"), "cache_dir": ""})
    config.optim.update({"epochs": 2, "warmup_epochs": 1, "learning_rate": 1e-3})
    config.checkpoint.every_epochs = 1
    if not (folder / "sentences.npz").exists():
        write_text_vectors(prepare(unpack(config).data), folder / "sentences.npz")
    return config


LONGNET = {
    "in_dim": 12,
    "width": 16,
    "depth": 2,
    "num_heads": 4,
    "ffn_dim": 32,
    "segment_lengths": (8, 32),
    "dilated_ratios": (1, 2),
}

ABMIL = {"hidden_dim": 8, "num_layers": 2, "attention_dim": 4}
TRANSMIL = {"dim": 8, "num_heads": 2, "num_landmarks": 3, "value_kernel": 5, "position_kernels": (5, 3)}
SNN = {"widths": (8, 6)}
PATHWAYS = {"latent_dim": 8, "depth": 1, "num_tokens": 3}
BASELINE_SIZES: dict[str, dict[str, Any]] = {
    "slide_encoder": {"encoder": LONGNET},
    "tile_mean": {},
    "mean_pool": {"hidden_dim": 8},
    "abmil": ABMIL,
    "transmil": TRANSMIL,
    "abmil_cat": {"slides": ABMIL, "expression": SNN, "fusion_dim": 8},
    "transmil_cat": {"slides": TRANSMIL, "expression": SNN, "fusion_dim": 8},
    "slide_encoder_cat": {"encoder": LONGNET, "expression": SNN, "fusion_dim": 8},
    "expression_linear": {},
    "mlp": {"widths": (16, 8)},
    "snn": {"widths": (16, 8)},
    "sparse_mlp": {"latent_dim": 4, "width": 16},
    "gene_mixer": {"pathways": PATHWAYS, "dim": 16},
    "clinical_linear": {},
    "mcat": {
        "dim": 8,
        "transformer": {"depth": 1, "num_heads": 2, "ffn_dim": 16},
        "fusion": "bilinear",
        "bilinear_dim": 4,
    },
    "survpath": {"token_dim": 8, "attention_dim": 6, "hidden_dim": 16},
}
"""Tiny sizes of every baseline."""


def shrink_baseline(config: ConfigDict) -> None:
    """A config of configs/baselines.py in seconds."""
    config.model.in_dim = 12
    config.model.sizes.update(BASELINE_SIZES[config.model.name])
    config.encoder_weights.update({"init": "random", "path": ""})
    shrink_data(config)


def shrink_data(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.pipeline.update({"batch_size": 8, "num_buckets": 2, "multiple": 8, "max_tiles": 24})
    config.loss.discrete_hazard.num_bins = 2
    config.loss.cox.memory = min(config.loss.cox.memory, 6)


def shrink(config: ConfigDict, encoder: str = "longnet") -> None:
    """Any config of ModalTune in seconds: same structure, tiny sizes."""
    shrink_data(config)
    if encoder == "mean_pool":
        config.model.encoder = common.mean_pool(in_dim=12, width=16)
        config.model.encoder.depth = 2
    elif encoder == "titan":
        config.model.encoder.update(
            {
                "in_dim": 12,
                "width": 16,
                "depth": 2,
                "num_heads": 4,
                "mlp_dim": 32,
                "pooler_heads": 2,
                "num_caption_queries": 3,
            }
        )
    else:
        config.model.encoder.update(LONGNET)
    config.encoder_weights.update({"init": "random", "path": ""})
    config.model.adapter.update({"stages": ((0, 1), (1, 2)), "num_extra_extractors": 1, "num_heads": 2})
    config.model.pathways.update(PATHWAYS)
    config.model.embedding_dim = 16


def smallest(config: ConfigDict) -> ConfigDict:
    """One bucket and one stage: half the compilation of `shrink`."""
    config.pipeline.num_buckets = 1
    config.model.adapter.num_extra_extractors = 0
    config.model.encoder.depth = 1
    config.model.adapter.stages = ((0, 1),)
    return config


def write_text_vectors(records: Records, path: Path) -> None:
    """A random vector for every sentence of the records, and for every prompt of their classes."""
    transforms = fit_transforms(records, num_bins=2)
    specs = {spec.name: spec for spec in records.specs}
    sites = records.table["site"]
    unique = sorted(
        {
            sentence
            for i, site in enumerate(sites)
            for sentence in task_sentences(
                records.labels(i), specs[site], transforms.survival_edges.get(site)
            )
        }
    )
    templates = common.loss().text_similarity.templates
    names = {name: [name] for spec in specs.values() for name in spec.classes}
    unique += sorted(
        {prompt for group in prompts_from_templates(names, templates).values() for prompt in group}
    )
    vectors = np.random.default_rng(0).normal(size=(len(unique), 10)).astype(np.float32)
    np.savez(path, sentences=np.array(unique), vectors=vectors)


def experiment(
    folder: Path, encoder: str = "longnet", loss: ConfigDict | None = None, **optim
) -> tuple[Config, Records, Targets]:
    """A config with its records and targets for `train.build`; with losses of its own, the smallest."""
    as_written = config_dict(folder, encoder)
    if loss is not None:
        as_written = smallest(as_written)
        as_written.loss = loss
    config = unpack(as_written)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, **optim))
    records = prepare(config.data)
    targets = targets_of_records(
        records,
        load_encoder(config.text.encoder),
        config.text,
        config.loss,
        num_bins=config.data.num_bins,
        bins="train",
        clinical=config.data.clinical,
        dim=config.model.embedding_dim,
    )
    return config, records, targets
