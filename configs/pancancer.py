"""Pan-cancer: one model over BRCA, GBMLGG, NSCLC and RCC on frozen Prov-GigaPath features.

    python -m modaltune_jax.main --config=configs/pancancer.py           # records/pancancer: data/README.md
    python -m modaltune_jax.main --config=configs/pancancer.py:labels    # the same on labels instead of text
    python -m modaltune_jax.main --config=configs/pancancer.py:clinical  # clinical values as a third modality
    python -m modaltune_jax.main --config=configs/pancancer.py:reference # one case a step, as published
    python -m modaltune_jax.main --config=configs/pancancer.py:demo      # simulated cases, a laptop, minutes

The demo compares the model with itself shown one modality only. Its encoder is a small LongNet of random
weights that is trained throughout: there is nothing pretrained about simulated tiles.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.get_config()
    config.name = "pancancer"
    if variant == "demo":
        return demo(config)
    config.seeds = (0, 1, 2)
    if variant == "labels":
        return labels(config)
    if variant == "clinical":
        return clinical(config)
    if variant == "reference":
        return reference(config)
    if variant:
        raise ValueError(
            f"configs/pancancer.py has the variants '', 'labels', 'clinical', 'reference' and 'demo', "
            f"not {variant!r}"
        )
    return config


def labels(config: ConfigDict) -> ConfigDict:
    """Cox and similarity to class prompts in place of the sentences, see docs/losses.md."""
    config.name = "pancancer_labels"
    config.loss = common.loss(cox=1.0, text_similarity=1.0)
    config.loss.cox.memory = 256
    config.checkpoint.best = ("subtype:similarity", "survival:risk")
    return config


def clinical(config: ConfigDict) -> ConfigDict:
    """Stage, TNM and age as a modal token; further packed columns by `data.clinical`."""
    config.name = "pancancer_clinical"
    modalities = ("slides", "expression", "clinical")
    config.model.modalities = config.pipeline.modalities = modalities
    config.compare = (("full", modalities),)
    return config


def reference(config: ConfigDict) -> ConfigDict:
    """Batches, grids and survival bins of the published training: one case a step on one device.

    The published learning rate is for that batch. AdamW wants its rate times the square root of the cases of
    an update (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms").
    """
    config.name = "pancancer_reference"
    config.data.bins = "reference"
    config.pipeline.update({"batch_size": 1, "tile_size": 256, "layout": "reference", "spread": ()})
    config.mesh.data = 1
    return config


def demo(config: ConfigDict) -> ConfigDict:
    config.name = "demo"
    config.compare = (
        ("full", ("slides", "expression")),
        ("image_only", ("slides",)),
        ("expression_only", ("expression",)),
    )
    config.data.source = "simulation"
    config.data.directory = "records/demo"
    config.data.simulation.update(
        {
            "cases_per_site": 400,
            "feature_dim": 16,
            "num_genes": 40,
            "num_pathways": 4,
            "mean_tiles": 16,
            "noise": 0.5,
        }
    )
    # Many small steps: what needs both modalities is learnt late.
    config.pipeline.update({"batch_size": 16, "num_buckets": 1, "multiple": 16, "max_tiles": 15})
    small(config, in_dim=16, width=64, depth=3)
    config.model.encoder.dropout = 0.0
    config.model.pathways.update({"latent_dim": 16, "num_tokens": 4, "dropout": 0.0})
    config.optim.update({"epochs": 36, "warmup_epochs": 2, "learning_rate": 2e-3})
    config.checkpoint.every_epochs = 6
    return config


def small(config: ConfigDict, *, in_dim: int, width: int, depth: int) -> None:
    """A small LongNet of random weights, trained throughout, with an adapter to match."""
    config.encoder_weights = ConfigDict({"init": "random", "path": ""})
    config.model.encoder.update(
        {
            "in_dim": in_dim,
            "width": width,
            "depth": depth,
            "num_heads": 4,
            "ffn_dim": 2 * width,
            "segment_lengths": (64, 256, 1024),
            "dilated_ratios": (1, 2, 4),
            "dropout": 0.1,
        }
    )
    config.model.adapter.update({"stages": ((0, 1), (1, 2), (2, 3)), "num_heads": 4})
    config.model.pathways.update({"latent_dim": 32, "depth": 2, "num_tokens": 8, "dropout": 0.1})
    config.optim.rules = ((".*", "train"),)
