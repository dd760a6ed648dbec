"""What a person sees while a run trains: a progress bar, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import pandas as pd
from tqdm import tqdm

from modaltune_jax.scores import score_name

LOG_EVERY_SECONDS = 1.0


class Monitor:
    """Logs every step of a run; losses are fetched about once a second, so that steps stay asynchronous.

    Of several processes, the first logs.

    Args:
      workdir: gets `metrics.jsonl`, `probes_val.csv` and `tensorboard/`. After a resume, lines beyond
        the resumed step are dropped, and its validation, which is done again: every step is there once.
      start: steps done before.
      num_steps: steps in all.
      steps_per_epoch: to show epochs.
      is_writing: False only watches that losses are finite, in a process beside the one that writes.
    """

    def __init__(
        self, workdir: Path, start: int, num_steps: int, steps_per_epoch: int, *, is_writing: bool = True
    ):
        self._is_writing = is_writing
        self._path = workdir / "metrics.jsonl"
        self._probes_path = workdir / "probes_val.csv"
        if self._is_writing:
            from tensorboardX import SummaryWriter

            workdir.mkdir(parents=True, exist_ok=True)
            _keep_until(self._path, start)
            self._lines = self._path.open("a", encoding="utf-8")
            self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(
            total=num_steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            desc="/".join(workdir.parts[-2:]),
            mininterval=0.5,
            disable=not self._is_writing,
        )
        self._steps_per_epoch = steps_per_epoch
        self._pending: list[tuple[int, dict[str, Any]]] = []
        self._since = time.perf_counter()

    def train(self, step: int, metrics: dict[str, Any]) -> None:
        """Notes a step; about once a second, writes what was noted.

        Raises:
          FloatingPointError: the loss is not finite.
        """
        self._bar.update()
        self._pending.append((step, metrics))
        if time.perf_counter() - self._since >= LOG_EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes a line for every step noted since the last time.

        Raises:
          FloatingPointError: a loss is not finite.
        """
        if not self._pending:
            return
        fetched = jax.device_get(self._pending)
        seconds = time.perf_counter() - self._since
        rate = sum(float(metrics["cases"]) for _, metrics in fetched) / seconds
        for step, metrics in fetched:
            row = {name: float(metrics[name]) for name in ("loss", "grad_norm")}
            _check_finite(step, row)
            self._write(step, "train", {**row, **_terms(metrics["terms"]), "cases_per_second": rate})
        mean = sum(float(metrics["loss"]) for _, metrics in fetched) / len(fetched)
        self._bar.set_postfix(
            epoch=f"{step / self._steps_per_epoch:.1f}", loss=f"{mean:.4f}", cases_s=f"{rate:.0f}"
        )
        self._pending, self._since = [], time.perf_counter()

    def probes(self, step: int, table: pd.DataFrame, score: float) -> None:
        """Writes the validation probes of a step."""
        if not self._is_writing:
            return
        overall = table[table["site"] == "overall"]
        named = zip(map(score_name, overall["target"], overall["method"]), overall["value"], strict=True)
        row = {name: float(value) for name, value in named if not math.isnan(value)}
        self._write(step, "val", {**row, "score": score})
        if self._is_writing:
            temporary = self._probes_path.with_suffix(".tmp")
            table.assign(step=step).to_csv(temporary, index=False)
            os.replace(temporary, self._probes_path)
            text = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
            self._bar.write(f"epoch {step / self._steps_per_epoch:g}: val {text or 'cannot be probed'}")
        self._since = time.perf_counter()

    def _write(self, step: int, group: str, row: dict[str, Any]) -> None:
        if not self._is_writing:
            return
        named = {f"{group}/{key}": value for key, value in row.items()}
        self._lines.write(json.dumps({"step": step, **named}) + "\n")
        self._lines.flush()
        for key, value in named.items():
            self._tensorboard.add_scalar(key, value, step)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()
        if self._is_writing:
            self._lines.close()
            self._tensorboard.close()


def _check_finite(step: int, row: dict[str, float]) -> None:
    # A finite loss may have a gradient that is not, and weights that are not are checkpointed otherwise.
    for name, value in row.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} at step {step}: lower optim.learning_rate or set optim.max_grad_norm; "
                "the latest checkpoint is from before"
            )


def _terms(terms: dict[str, Any]) -> dict[str, float]:
    """Mean of every term over its cases (or deaths); a term that found none in the batch is left out."""
    return {f"loss_{name}": float(t.total) / max(float(t.num), 1.0) for name, t in terms.items() if t.num}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a line cut off by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):
            rows.append(json.loads(line))
    return rows


def _keep_until(path: Path, step: int) -> None:
    """Drops the lines beyond a step, and its validation."""
    rows = [row for row in read_metrics(path) if row["step"] < step + ("train/loss" in row)]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(temporary, path)
