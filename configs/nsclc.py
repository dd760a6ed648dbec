"""NSCLC alone, on frozen Prov-GigaPath features: records/nsclc, see data/README.md."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "nsclc"
    config.seeds = (0, 1, 2)
    config.data.directory = "records/nsclc"
    config.data.cohorts = ("nsclc",)
    return config
