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
    """Logs a run; the loss is fetched about once a second, so that steps stay asynchronous.

    Args:
      workdir: gets `metrics.jsonl`, `probes_val.csv` and `tensorboard/`. After a resume, lines beyond
        the resumed step are dropped: every step is there once.
      start: steps done before.
      num_steps: steps in all.
      steps_per_epoch: to show epochs.
      is_writing: False only watches that losses are finite, in a process beside the one that writes.
    """

    def __init__(
        self, workdir: Path, start: int, num_steps: int, steps_per_epoch: int, *, is_writing: bool = True
    ):
        from tensorboardX import SummaryWriter

        self._is_writing = is_writing
        self._path = workdir / "metrics.jsonl"
        self._probes_path = workdir / "probes_val.csv"
        if is_writing:
            workdir.mkdir(parents=True, exist_ok=True)
            _keep_until(self._path, start)
        self._lines = (self._path if is_writing else Path(os.devnull)).open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start + 1, write_to_disk=is_writing
        )
        self._bar = tqdm(
            total=num_steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            desc="/".join(workdir.parts[-2:]),
            mininterval=0.5,
            disable=not is_writing,
        )
        self._steps_per_epoch = steps_per_epoch
        self._pending: list[dict[str, jax.Array]] = []
        self._since = time.perf_counter()

    def train(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Notes a step; writes the mean of the steps since the last line.

        Raises:
          FloatingPointError: the loss is not finite.
        """
        self._bar.update()
        self._pending.append(metrics)
        if time.perf_counter() - self._since >= LOG_EVERY_SECONDS or step % self._steps_per_epoch == 0:
            self._flush(step)

    def _flush(self, step: int) -> None:
        fetched = jax.device_get(self._pending)
        seconds = time.perf_counter() - self._since
        cases = sum(float(m["cases"]) for m in fetched)
        row = {
            "loss": sum(float(m["loss"]) * float(m["cases"]) for m in fetched) / max(cases, 1.0),
            "grad_norm": sum(float(m["grad_norm"]) for m in fetched) / len(fetched),
            "cases_per_second": cases / seconds,
            **_terms([m["terms"] for m in fetched]),
        }
        self._pending, self._since = [], time.perf_counter()
        # A finite loss may have a gradient that is not, and weights that are not are checkpointed otherwise.
        for name in ("loss", "grad_norm"):
            if not math.isfinite(row[name]):
                raise FloatingPointError(
                    f"{name} is {row[name]} at step {step}: lower optim.learning_rate or set "
                    "optim.max_grad_norm; the latest checkpoint is from before"
                )
        self._write(step, "train", row)
        self._bar.set_postfix(
            epoch=f"{step / self._steps_per_epoch:.1f}",
            loss=f"{row['loss']:.4f}",
            cases_s=f"{row['cases_per_second']:.0f}",
        )

    def probes(self, step: int, table: pd.DataFrame, score: float) -> None:
        """Writes the validation probes of a step."""
        if not self._is_writing:
            return
        overall = table[table["site"] == "overall"]
        named = zip(map(score_name, overall["target"], overall["method"]), overall["value"], strict=True)
        row = {name: float(value) for name, value in named if not math.isnan(value)}
        self._write(step, "val", {**row, "score": score})
        temporary = self._probes_path.with_suffix(".tmp")
        table.assign(step=step).to_csv(temporary, index=False)
        os.replace(temporary, self._probes_path)
        text = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
        self._bar.write(f"epoch {step / self._steps_per_epoch:g}: val {text or 'cannot be probed'}")
        self._since = time.perf_counter()

    def _write(self, step: int, group: str, row: dict[str, Any]) -> None:
        named = {f"{group}/{key}": value for key, value in row.items()}
        self._lines.write(json.dumps({"step": step, **named}) + "\n")
        self._lines.flush()
        for key, value in named.items():
            self._tensorboard.add_scalar(key, value, step)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()
        self._lines.close()
        self._tensorboard.close()


def _terms(fetched: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of every term over the cases (or deaths) of several steps."""
    means = {}
    for name in fetched[0]:
        num = sum(float(terms[name].num) for terms in fetched)
        means[f"loss_{name}"] = sum(float(terms[name].total) for terms in fetched) / max(num, 1.0)
    return means


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
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(temporary, path)
