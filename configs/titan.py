"""ModalTune on the frozen TITAN slide encoder and CONCH v1.5 tile features, see data/README.md.

    python -m modaltune_jax.main --config=configs/titan.py         # BRCA, GBMLGG, NSCLC and RCC
    python -m modaltune_jax.main --config=configs/titan.py:brca    # one cohort of data/*.toml

Tiles of 512 pixels at 20x are 1024 level-0 pixels of a slide scanned at 40x. The published code takes 1024
for every slide; `--config.pipeline.tile_size=0` takes each slide's own.
"""

from ml_collections import ConfigDict

from configs import common
from modaltune_jax.inputs.cohort import find_spec


def get_config(cases: str = "pancancer") -> ConfigDict:
    config = common.get_config()
    config.name = "titan_pancancer"
    if cases != "pancancer":
        config.name = f"titan_{find_spec(cases).name}"
        config.data.cohorts = (cases,)
    config.data.directory = f"records/{config.name}"
    config.seeds = (0, 1, 2)
    config.pipeline.update({"max_tiles": 15_000, "tile_size": 1024, "origin": "slide", "merge_cells": True})
    config.model.encoder = titan()
    config.model.adapter.stages = ((0, 2), (2, 4), (4, 6))
    config.model.fusion = "cat"
    config.encoder_weights.path = "hf:titan"
    return config


def titan() -> ConfigDict:
    """The published slide encoder."""
    return ConfigDict(
        {
            "name": "titan",
            "in_dim": 768,
            "width": 768,
            "depth": 6,
            "num_heads": 12,
            "mlp_dim": 3072,
            "pooler_heads": 8,
            "num_caption_queries": 128,
            "dtype": "float32",
            "remat": False,
            "scan_layers": False,
        }
    )
