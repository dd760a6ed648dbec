"""The smallest experiment as a user has it: a folder with a config file and data."""

from pathlib import Path

from tests import tiny

# One stage, one bucket: a quarter of the time that `tiny` takes to compile.
CONFIG = """
from pathlib import Path
from tests import tiny

def get_config(extra=""):
    config = tiny.config_dict(Path(__file__).parent, "mean_pool")
    config.model.adapter.update({"stages": ((0, 2),), "num_extra_extractors": 0})
    config.pipeline.num_buckets = 1
    config.optim.update({"epochs": 8, "warmup_epochs": 1})
    if extra:
        config.optim[extra] = 3
    return config
"""


def make_folder(folder: Path) -> Path:
    """Writes `small.py` and what it needs."""
    (folder / "small.py").write_text(CONFIG)
    tiny.config_dict(folder, "mean_pool")
    return folder
