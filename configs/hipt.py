"""Region features of HIPT (192 wide, some hundred a case): TCGA at the size of a laptop's CPU.

    python -m modaltune_jax.main --config=configs/hipt.py:pancancer,longnet --config.data.path=FOLDER

The folder is laid out as `modaltune_jax/inputs/readers/tcga_bench.py` says. The first word picks the cases:
"pancancer" (BRCA, GBMLGG, NSCLC, RCC on one table of expression signatures) or one cohort with its own
expression table ("blca" has genes enough for the 331 pathways). The second picks the encoder: "mean_pool",
"longnet" (small, trained throughout) or "longnet_frozen" (the same, frozen at random: a control).
"""

from ml_collections import ConfigDict

from configs import common
from configs.pancancer import small

ENCODERS = ("mean_pool", "longnet", "longnet_frozen")


def get_config(arguments: str = "pancancer,longnet") -> ConfigDict:
    cases, _, encoder = arguments.partition(",")
    if encoder not in ENCODERS:
        raise ValueError(f"write CASES,ENCODER; the encoder is one of {', '.join(ENCODERS)}, not {encoder!r}")
    config = common.get_config()
    config.name = f"hipt_{cases}_{encoder}"
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
