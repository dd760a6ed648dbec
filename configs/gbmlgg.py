"""GBMLGG alone, on frozen Prov-GigaPath features: records/gbmlgg, see data/README.md."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "gbmlgg"
    config.seeds = (0, 1, 2)
    config.data.directory = "records/gbmlgg"
    config.data.cohorts = ("gbmlgg",)
    return config
