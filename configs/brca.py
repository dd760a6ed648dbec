"""BRCA alone, on frozen Prov-GigaPath features: records/brca, see data/README.md."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "brca"
    config.seeds = (0, 1, 2)
    config.data.directory = "records/brca"
    config.data.cohorts = ("brca",)
    return config
