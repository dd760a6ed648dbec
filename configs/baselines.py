"""Baselines in the trainer, on the data and in the tables of ModalTune; each learns one target.

    python -m modaltune_jax.main --config=configs/baselines.py:abmil,subtype
    python -m modaltune_jax.main --config=configs/baselines.py:slide_encoder,probe
    python -m modaltune_jax.main --config=configs/baselines.py:abmil,cox,hipt:brca --config.data.path=FOLDER

The first word is one of `MODELS`, the second one of `TARGETS`. "probe" trains nothing: the embedding as it
is, with probes on it. A third word takes other data than records/pancancer: "hipt:CASES" those of
configs/hipt.py, "demo" the simulated ones of configs/pancancer.py, both in smaller sizes.
"""

import copy
import dataclasses
from typing import Any

from ml_collections import ConfigDict

from configs import common, hipt, pancancer
from modaltune_jax.models.baselines.gene_mixer import GeneMixerConfig
from modaltune_jax.models.baselines.mcat import McatConfig
from modaltune_jax.models.baselines.mlp import MlpConfig
from modaltune_jax.models.baselines.snn import SnnConfig
from modaltune_jax.models.baselines.sparse_mlp import SparseMlpConfig
from modaltune_jax.models.baselines.survpath import SurvPathConfig

SLIDES, EXPRESSION, CLINICAL, BOTH = ("slides",), ("expression",), ("clinical",), ("slides", "expression")
ENCODER = None
"""Stands for the slide encoder of the config that the cases come from."""

ABMIL = {"hidden_dim": 512, "num_layers": 2, "attention_dim": 128, "dropout": 0.25}
TRANSMIL = {
    "dim": 512,
    "num_heads": 8,
    "num_landmarks": 256,
    "num_iterations": 6,
    "value_kernel": 33,
    "position_kernels": (7, 5, 3),
    "dropout": 0.1,
}
SNN = {"widths": (256, 256), "activation": "elu", "dropout": 0.25}

MODELS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "slide_encoder": (SLIDES, {"encoder": ENCODER}),
    "tile_mean": (SLIDES, {}),
    "mean_pool": (SLIDES, {"hidden_dim": 512, "dropout": 0.25}),
    "abmil": (SLIDES, ABMIL),
    "transmil": (SLIDES, TRANSMIL),
    "abmil_cat": (BOTH, {"slides": ABMIL, "expression": SNN, "fusion_dim": 256}),
    "transmil_cat": (BOTH, {"slides": TRANSMIL, "expression": SNN, "fusion_dim": 256}),
    "slide_encoder_cat": (BOTH, {"encoder": ENCODER, "expression": SNN, "fusion_dim": 256}),
    "expression_linear": (EXPRESSION, {}),
    "mlp": (EXPRESSION, dataclasses.asdict(MlpConfig.published())),
    "snn": (EXPRESSION, dataclasses.asdict(SnnConfig.published())),
    "sparse_mlp": (EXPRESSION, dataclasses.asdict(SparseMlpConfig.published())),
    "gene_mixer": (EXPRESSION, dataclasses.asdict(GeneMixerConfig.published())),
    "clinical_linear": (CLINICAL, {}),
    "mcat": (BOTH, dataclasses.asdict(McatConfig.published())),
    "survpath": (BOTH, dataclasses.asdict(SurvPathConfig.published())),
}
"""What each baseline looks at, and its sizes."""

SMALL_ABMIL = {"hidden_dim": 96, "attention_dim": 48}
SMALL_TRANSMIL = {"dim": 96, "num_heads": 4, "num_landmarks": 32}
SMALL_SNN = {"widths": (96, 96)}
SMALL: dict[str, dict[str, Any]] = {
    "mean_pool": {"hidden_dim": 96},
    "abmil": SMALL_ABMIL,
    "transmil": SMALL_TRANSMIL,
    "abmil_cat": {"slides": SMALL_ABMIL, "expression": SMALL_SNN, "fusion_dim": 96},
    "transmil_cat": {"slides": SMALL_TRANSMIL, "expression": SMALL_SNN, "fusion_dim": 96},
    "slide_encoder_cat": {"expression": SMALL_SNN, "fusion_dim": 96},
    "mlp": {"widths": (64, 64, 64)},
    "snn": {"widths": (64, 64)},
    "sparse_mlp": {"latent_dim": 16, "width": 64},
    "gene_mixer": {"pathways": {"latent_dim": 64, "num_tokens": 16}, "dim": 96},
    "mcat": {"dim": 64, "transformer": {"ffn_dim": 128}},
    "survpath": {"token_dim": 64, "attention_dim": 32, "hidden_dim": 32},
}
"""What is smaller for features of 192 values and less."""

SCHEDULES: dict[str, dict[str, Any]] = {
    "mcat": {"learning_rate": 2e-4, "weight_decay": 1e-5},
    "survpath": {"learning_rate": 5e-4, "weight_decay": 1e-3},
}
"""As published, for records/pancancer; both for 20 epochs."""

TARGETS = {
    "subtype": ("subtype:classes", {"cross_entropy": 1.0}),
    "survival": ("survival:hazard", {"discrete_hazard": 1.0}),
    "cox": ("survival:risk", {"cox": 1.0}),
    "probe": ("", {}),
}
"""What picks the checkpoint, and the losses."""


def get_config(arguments: str = "abmil,subtype") -> ConfigDict:
    name, target, cases, *rest = [*arguments.split(","), "", ""]
    if name not in MODELS or target not in TARGETS or any(rest):
        raise ValueError(
            f"write NAME,TARGET or NAME,TARGET,CASES, not {arguments!r}: the name is one of "
            f"{', '.join(MODELS)}, the target one of {', '.join(TARGETS)}"
        )
    config = data(cases)
    config.name = "_".join(word for word in ("baseline", name, target, cases.replace(":", "_")) if word)
    modalities, published = MODELS[name]
    sizes = ConfigDict(copy.deepcopy(published))
    if cases:
        sizes.update(SMALL.get(name, {}))
    if "encoder" in sizes:
        with sizes.ignore_type():
            sizes.encoder = config.model.encoder
    else:
        config.encoder_weights = ConfigDict({"init": "random", "path": ""})
    config.model = ConfigDict({"name": name, "in_dim": config.model.encoder.in_dim, "sizes": sizes})
    config.pipeline.modalities = modalities
    config.compare = (("full", modalities),)
    best, weights = TARGETS[target]
    config.loss = common.loss(**weights)
    config.optim.rules = ((".*", "train"),)
    if not cases:
        config.optim.update(SCHEDULES.get(name, {}))
    if name == "survpath":
        config.loss.discrete_hazard.alpha = 0.5
    if name == "mcat" and config.data.gene_sets == "pathways.csv.gz":
        # Six families of genes rather than 331 pathways, in records of their own.
        config.data.gene_sets = "gene_groups_mcat.csv"
        config.data.directory += "_families"
    if target == "cox":
        config.loss.cox.memory = 64
    if target == "probe":
        config.optim.update({"epochs": 0, "warmup_epochs": 0})
        config.optim.rules = ((".*", "freeze"),) if "encoder" in sizes else ()
    else:
        config.checkpoint.best = (best,)
    return config


def data(cases: str) -> ConfigDict:
    """A config with the cases, and a schedule for them."""
    source, _, cohort = cases.partition(":")
    if source == "hipt":
        config = hipt.get_config(f"{cohort},longnet")
        config.optim.update({"epochs": 20, "warmup_epochs": 1, "learning_rate": 5e-4, "weight_decay": 1e-2})
    elif source == "demo":
        config = pancancer.get_config("demo")
    elif not source:
        config = pancancer.get_config()
        config.optim.update({"epochs": 20, "warmup_epochs": 1, "learning_rate": 2e-4, "weight_decay": 1e-5})
        config.checkpoint.every_epochs = 1
    else:
        raise ValueError(f"the cases are 'hipt:CASES', 'demo' or left out, not {cases!r}")
    return config
