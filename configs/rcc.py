"""RCC alone, on frozen Prov-GigaPath features: records/rcc, see data/README.md."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.name = "rcc"
    config.seeds = (0, 1, 2)
    config.data.directory = "records/rcc"
    config.data.cohorts = ("rcc",)
    return config
