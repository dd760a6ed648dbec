"""The table of a sweep: a row a run, what became of it, and why it failed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from modaltune_jax.sweeping.grid import Experiment

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
_KEY = ["experiment", "variant", "seed"]
_COLUMNS = [*_KEY, "cohort", "status", "seconds", "config", "folder", "error"]


class Ledger:
    """`sweep.csv`, whole at any time. Rows of earlier sweeps into the same folder are kept.

    Args:
      path: of the table.
      experiments: of this sweep; what is finished is known by its folder.
    """

    def __init__(self, path: Path, experiments: Sequence[Experiment]):
        self.path = path
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str, int], dict] = {}
        if path.exists():
            before = pd.read_csv(path, keep_default_na=False)
            self._rows = {(row["experiment"], row["variant"], row["seed"]): row for row in _records(before)}
        for experiment in experiments:
            for variant, seed in experiment.runs:
                status = DONE if experiment.is_finished(variant, seed) else WAITING
                self._rows[experiment.name, variant, seed] = self._row(experiment, variant, seed, status)
        self._write()

    def set(self, experiment: Experiment, variant: str, seed: int, status: str, error: str = "") -> None:
        """Notes what has become of a run."""
        with self._lock:
            row = self._row(experiment, variant, seed, status, error)
            self._rows[experiment.name, variant, seed] = row
            self._write()

    def count(self, experiments: Sequence[Experiment], status: str) -> int:
        """Runs of these experiments that are in a state."""
        keys = [(one.name, variant, seed) for one in experiments for variant, seed in one.runs]
        return sum(self._rows[key]["status"] == status for key in keys)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(list(self._rows.values()), columns=_COLUMNS)

    def _row(self, experiment: Experiment, variant: str, seed: int, status: str, error: str = "") -> dict:
        folder = experiment.folder(variant, seed)
        return {
            **dict(zip(_KEY, (experiment.name, variant, seed), strict=True)),
            "cohort": experiment.cohort,
            "status": status,
            "seconds": wall_seconds(folder) if status == DONE else "",
            "config": experiment.words,
            "folder": str(folder),
            "error": error,
        }

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        self.table().to_csv(temporary, index=False)
        os.replace(temporary, self.path)


def wall_seconds(folder: Path) -> float | str:
    """How long a run took, over all of its parts; "" if nobody wrote it down."""
    path = folder / "manifest.json"
    if not path.exists():
        return ""
    return round(json.loads(path.read_text(encoding="utf-8"))["wall_seconds"], 1)


def _records(table: pd.DataFrame) -> list[dict]:
    return [dict(row) for row in table[_COLUMNS].to_dict("records")]
