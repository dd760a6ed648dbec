"""Defaults, once: the published ModalTune on Prov-GigaPath. Configs say only what they change."""

from typing import Any

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "common"
    config.seeds = (0,)
    # Variants trained beside each other: name, and the modalities that the model is shown.
    config.compare = (("full", ("slides", "expression")),)

    config.data = data()
    config.pipeline = pipeline()
    config.text = text()
    config.model = model()
    config.encoder_weights = ConfigDict(
        {"init": "file", "path": "hf:gigapath"}  # in the local Hugging Face cache, or a path
    )
    config.adapter_weights = ConfigDict({"path": ""})  # a converted checkpoint to start from
    config.loss = loss(distillation=1.0)
    config.optim = optim()
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "sequence": 1})
    config.checkpoint = checkpoint()
    return config


def data() -> ConfigDict:
    return ConfigDict(
        {
            "source": "records",
            "directory": "records/pancancer",
            "path": "",
            "cohorts": ("brca", "gbmlgg", "nsclc", "rcc"),
            "expression": "",
            "gene_sets": "",
            "num_bins": 4,
            "bins": "train",
            "clinical": ("stage", "t", "n", "m", "age"),
            "simulation": simulation(),
        }
    )


def pipeline() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 8,
            "tokens_per_batch": 100_000,
            "num_buckets": 8,
            "multiple": 128,
            "max_tiles": 25_000,
            "tile_size": 0,  # 0: each slide's own; 256 is the constant of the published code
            "layout": "stacked",
            "origin": "level0",
            "merge_cells": False,
            "feature_dtype": "float32",
            "spread": ("site", "event", "subtype"),
            "modalities": ("slides", "expression"),
            "num_threads": 2,
            "prefetch": 4,
        }
    )


def text() -> ConfigDict:
    return ConfigDict({"encoder": "minilm", "projector_seed": 0, "cache_dir": "~/.cache/modaltune_jax"})


def model() -> ConfigDict:
    return ConfigDict(
        {
            "encoder": prov_gigapath(),
            "adapter": {
                "stages": ((0, 4), (4, 8), (8, 12)),
                "attention_ratio": 0.25,
                "num_heads": 12,
                "ffn_ratio": 0.25,
                "num_extra_extractors": 2,
                "drop_path": 0.1,
            },
            "pathways": {
                "latent_dim": 256,
                "depth": 3,
                "pathway_expansion": 0.5,
                "channel_expansion": 0.5,
                "num_tokens": 64,
                "dropout": 0.25,
            },
            "modalities": ("slides", "expression"),
            "tasks": ("general", "diagnosis", "survival"),
            "expression_agg": "avg",
            "fusion": "sum",
            "embedding_dim": 256,
        }
    )


def loss(**weights: float) -> ConfigDict:
    """The named terms, all others left out: `loss(distillation=1.0, cox=0.1)`."""
    terms: dict[str, dict[str, Any]] = {
        "distillation": {
            "form": "kl",
            "temperature": 1.0,
            "scale": 10.0,
            "tasks": ("general", "diagnosis", "survival"),
        },
        "cox": {"ties": "efron", "per_site": True, "memory": 0},
        "discrete_hazard": {"num_bins": 4, "alpha": 0.0},
        "ranking": {"per_site": True, "scale": 1.0},
        "text_similarity": {
            "templates": (
                "CLASSNAME.",
                "a histopathology slide of CLASSNAME.",
                "the diagnosis is CLASSNAME.",
            ),
            "scope": "site",
            "is_balanced": True,
            "temperature": 0.0,
        },
        "cross_entropy": {"is_balanced": True},
    }
    unknown = set(weights) - set(terms)
    if unknown:
        raise ValueError(f"no loss is called {', '.join(unknown)}; there are {', '.join(terms)}")
    config = ConfigDict({"uncertainty": False})
    for name, settings in terms.items():
        config[name] = {"weight": float(weights.get(name, 0.0)), "ramp_epochs": 0.0, **settings}
    return config


def optim() -> ConfigDict:
    return ConfigDict(
        {
            "learning_rate": 1e-4,
            "weight_decay": 5e-4,
            "b1": 0.9,
            "b2": 0.999,
            "epochs": 60,
            "warmup_epochs": 10,
            "warmup_start": 0.05,
            "max_grad_norm": 0.0,
            "accumulate_steps": 1,
            "rules": (("^encoder/", "freeze"), (".*", "train")),
        }
    )


def checkpoint() -> ConfigDict:
    return ConfigDict(
        {
            "every_epochs": 5,
            "every_minutes": 10.0,
            "grace_seconds": 25.0,
            "keep": 2,
            "best": ("subtype", "survival"),
        }
    )


def prov_gigapath() -> ConfigDict:
    """LongNetViT "12l768d", with the rates its training leaves switched on."""
    return ConfigDict(
        {
            "name": "longnet",
            "in_dim": 1536,
            "width": 768,
            "depth": 12,
            "num_heads": 16,
            "ffn_dim": 3072,
            "segment_lengths": (1024, 5792, 32768, 185363, 1048576),
            "dilated_ratios": (1, 2, 4, 8, 16),
            "dropout": 0.25,
            "activation_dropout": 0.0,
            "drop_path": 0.1,
            "num_grids": 1000,
            "global_pool": False,
            "dtype": "float32",
            "attention": "auto",
            "remat": False,
            "scan_layers": True,
        }
    )


def mean_pool(in_dim: int, width: int) -> ConfigDict:
    """The control without attention; three empty blocks for the adapter's three stages."""
    return ConfigDict({"name": "mean_pool", "in_dim": in_dim, "width": width, "depth": 3})


def simulation() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "cases_per_site": 160,
            "feature_dim": 64,
            "num_genes": 240,
            "num_pathways": 24,
            "mean_tiles": 100,
            "missing_expression": 0.1,
            "missing_slides": 0.05,
            "noise": 1.0,
        }
    )
