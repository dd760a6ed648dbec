"""A finished run as its folder tells it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd

from modaltune_jax import case_scores
from modaltune_jax.config import Config
from modaltune_jax.evaluation.survival_columns import with_survival
from modaltune_jax.experiment import config_of_run
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """One run.

    Attributes:
      folder: `<workdir>/<variant>/seed<k>`.
      config: it was trained with.
      scores: case scores, with survival columns.
    """

    folder: Path
    config: Config
    scores: pd.DataFrame

    @property
    def name(self) -> str:
        """The end of its path: work folder, variant and seed."""
        return "/".join(self.folder.absolute().parts[-3:])

    @property
    def seed(self) -> int:
        """Of the run; folders are named by it."""
        number = self.folder.absolute().name.removeprefix("seed")
        if not number.isdigit():
            raise InputError(f"{self.folder} is not named seed<k>: give a run as training wrote it")
        return int(number)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model was shown, by the name of its variant.

        Raises:
          InputError: the config has no such variant.
        """
        variant, shown = self.folder.absolute().parent.name, dict(self.config.compare)
        if variant not in shown:
            raise InputError(
                f"{self.folder} is of the variant {variant!r}, which its config.json does not have (only "
                f"{', '.join(shown)}): runs lie in <workdir>/<variant>/seed<k>"
            )
        return shown[variant]


def read_run(folder: Path) -> FinishedRun:
    """A run whose training has come to its end.

    Raises:
      InputError: no run, one that is not finished, or one of another version.
    """
    config = config_of_run(folder)
    if not (folder / "probes.csv").exists():
        raise InputError(
            f"{folder} is not finished ({_status(folder)}): the command that trains it goes on with it"
        )
    scores = case_scores.read(folder / case_scores.NAME)
    path, predictions = folder / "predictions.csv", None
    if path.exists():
        predictions = pd.read_csv(path, dtype={"case_id": str}, keep_default_na=False, na_values="")
    return FinishedRun(folder, config, with_survival(scores, predictions))


def _status(folder: Path) -> str:
    try:
        return str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError):
        return "it has no probes.csv"
