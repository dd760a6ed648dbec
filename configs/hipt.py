"""Region features of HIPT (192 wide, some hundred a case): TCGA at the size of a laptop's CPU.

    python -m modaltune_jax.main --config=configs/hipt.py:pancancer,longnet --config.data.path=FOLDER
    python -m modaltune_jax.main --config=configs/hipt.py:pancancer,mean_pool,cox --config.data.path=FOLDER

The folder is laid out as `modaltune_jax/inputs/readers/tcga_bench.py` says. The first word picks the cases:
"pancancer" (BRCA, GBMLGG, NSCLC, RCC on one table of expression signatures) or one cohort with its own
expression table ("blca" has genes enough for the 331 pathways). The second picks the encoder: "mean_pool",
"longnet" (small, trained throughout) or "longnet_frozen" (the same, frozen at random: a control). A third
word picks the losses, see `LOSSES`; without one it is "text".
"""

from ml_collections import ConfigDict

from configs import common
from configs.pancancer import small

ENCODERS = ("mean_pool", "longnet", "longnet_frozen")
LOSSES = {
    "text": {"distillation": 1.0},
    "cox": {"cox": 1.0},
    "hazard": {"discrete_hazard": 1.0},
    "similarity": {"text_similarity": 1.0},
    "labels": {"cox": 1.0, "text_similarity": 1.0},
    "text_labels": {"distillation": 1.0, "cox": 0.1, "text_similarity": 0.1},
}
SELECTION = {
    "cox": ("subtype", "survival:risk"),
    "hazard": ("subtype", "survival:hazard"),
    "similarity": ("subtype:similarity", "survival"),
    "labels": ("subtype:similarity", "survival:risk"),
}


def get_config(arguments: str = "pancancer,longnet") -> ConfigDict:
    words = [*arguments.split(","), "text"]
    cases, encoder, loss = words[:3]
    if len(words) > 4 or encoder not in ENCODERS or loss not in LOSSES:
        raise ValueError(
            f"write CASES,ENCODER or CASES,ENCODER,LOSS, not {arguments!r}: the encoder is one of "
            f"{', '.join(ENCODERS)}, the loss one of {', '.join(LOSSES)}"
        )
    config = common.get_config()
    config.name = f"hipt_{cases}_{encoder}" + (f"_{loss}" if loss != "text" else "")
    config.loss = common.loss(**LOSSES[loss])
    # Heads go on learning when probes are at their best: each run is picked by what it trains.
    config.checkpoint.best = SELECTION.get(loss, ("subtype", "survival"))
    if "cox" in LOSSES[loss]:
        # A batch holds a death or two of each site.
        config.loss.cox.memory = 256 if cases == "pancancer" else 64
    config.seeds = (0, 1, 2)
    config.data.update(data(cases))
    config.pipeline.update({"batch_size": 32, "num_buckets": 4, "multiple": 32, "max_tiles": 512})
    small(config, in_dim=192, width=96, depth=3)
    config.model.pathways.update({"latent_dim": 64, "num_tokens": 16, "dropout": 0.25})
    if encoder == "mean_pool":
        config.model.encoder = common.mean_pool(in_dim=192, width=96)
    if encoder == "longnet_frozen":
        config.optim.rules = (("^encoder/", "freeze"), (".*", "train"))
    # Few epochs: the sentences' months of death and censoring are soon learnt by heart.
    config.optim.update({"epochs": 6, "warmup_epochs": 1, "learning_rate": 1e-3, "weight_decay": 0.05})
    config.checkpoint.every_epochs = 1
    if cases != "pancancer":
        config.pipeline.batch_size = 8
        config.optim.epochs = 12
    return config


def data(cases: str) -> dict:
    is_pancancer = cases == "pancancer"
    return {
        "source": "tcga_bench",
        "directory": f"records/hipt_{cases}",
        "path": "tcga_bench",
        "cohorts": ("brca", "gbmlgg", "nsclc", "rcc") if is_pancancer else (cases,),
        "expression": "pancan_sig_dec" if is_pancancer else "own",
        # Below the source's folder.
        "gene_sets": "signature_groups.csv" if cases in ("pancancer", "gbmlgg") else "pathways.csv.gz",
    }
