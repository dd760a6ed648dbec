"""Finished runs beside linear baselines, on cases that have both slides and expression.

    python benchmarks/tcga_bench.py --baselines FOLDER/baselines_common_cases.csv runs/hipt_pancancer_longnet

Probes are fitted again on the embeddings that a run has saved: on the training cases with both modalities,
and scored on the test cases with both; so are the heads of the model, which stay as they are. The
baselines (PCA, then logistic regression or ridge Cox) come with the compiled TCGA tables that
`modaltune_jax/inputs/readers/tcga_bench.py` reads. They have two numbers: with a fixed penalty, as our probes
have, and with the penalty picked on the validation split. `--intervals` adds 95 % bootstrap intervals over
the test cases, of the mean over seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from modaltune_jax.heads_table import HEADS, head_predictions
from modaltune_jax.inputs.records import Records
from modaltune_jax.metrics.intervals import Interval, bootstrap
from modaltune_jax.predictions import HeadLabels
from modaltune_jax.probes import probe_predictions
from modaltune_jax.results import over_seeds
from modaltune_jax.scores import OVERALL, POOLED, Predicted, score_table

# Which expression table the baseline of a cohort saw; for the pan-cancer one where there is a row of it.
BASELINE_TABLES = {
    "brca": "rna/brca",
    "gbmlgg": "rna/gbmlgg",
    "nsclc": "rna/nsclc",
    "rcc": "rna/pancan_sig_dec",
    "blca": "rna/blca",
}

# How the two files of baselines name their inputs.
FEATURES = {
    "WSI": ("WSI | common {}.parquet", "WSI HIPT mean+std"),
    "RNA": ("RNA | common {}.parquet", "{} (default)"),
    "WSI+RNA": ("WSI+RNA {}.parquet", "WSI + default"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baselines", type=Path, help="baselines_common_cases.csv, or baselines.csv")
    parser.add_argument("--intervals", action="store_true", help="minutes, where there are many sites")
    parser.add_argument("runs", nargs="+", type=Path, help="workdirs of finished experiments")
    arguments = parser.parse_args()
    columns = [column for run in arguments.runs for column in run_columns(run, arguments.intervals)]
    if arguments.baselines:
        sites = {site for column in columns for _, site in column.index}
        columns = [*baseline_columns(pd.read_csv(arguments.baselines), sites), *columns]
    table = pd.concat(columns, axis=1).fillna("")
    table.index = [f"{target} {site}" for target, site in table.index]
    print(to_markdown(table))


def to_markdown(table: pd.DataFrame) -> str:
    lines = [["", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[str(index), *map(str, row)] for index, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_columns(run: Path, with_intervals: bool) -> list[pd.Series]:
    """The columns of every variant of a run."""
    variants = sorted({path.parent.parent for path in run.glob("*/seed*/embeddings.npz")})
    if not variants:
        raise SystemExit(f"{run} holds no finished run")
    names = [run.name if len(variants) == 1 else f"{run.name}/{variant.name}" for variant in variants]
    columns = [variant_columns(*one, with_intervals) for one in zip(names, variants, strict=True)]
    return [column for of_variant in columns for column in of_variant]


def variant_columns(name: str, variant: Path, with_intervals: bool) -> list[pd.Series]:
    """The probes and each head: mean ± sd over the seeds that are finished, by (target, site)."""
    finished = sorted(path.parent for path in variant.glob("seed*/embeddings.npz"))
    seeds, table = predictions_on_complete_cases(finished)
    scores = [score_table(seed, table, ("test",)) for seed in seeds]
    summary = over_seeds(pd.concat(scores).assign(variant=name))
    intervals: dict[tuple[str, str, str], Interval] = {}
    if with_intervals:
        for one in zip(*seeds, strict=True):
            found = interval_by_site(one, table)
            intervals |= {(one[0].target, one[0].method, site): found[site] for site in found}
    columns = []
    for label, block in summary.groupby("label", sort=False):
        cells = {
            (row.target, row.site): _cell(row.mean, row.sd, intervals.get((row.target, row.method, row.site)))
            for row in block.itertuples(index=False)
        }
        columns.append(pd.Series(cells, name=f"{label} ({len(finished)} seeds)"))
    return columns


def predictions_on_complete_cases(folders: Sequence[Path]) -> tuple[list[list[Predicted]], pd.DataFrame]:
    """Probes and heads of each seed, and the cases with both modalities that they are about."""
    directory = json.loads((folders[0] / "config.json").read_text())["data"]["directory"]
    records = Records(directory)
    rows = np.flatnonzero((records.table["num_tiles"] > 0) & records.table["has_expression"])
    table = records.table.iloc[rows].reset_index(drop=True)
    specs = {spec.name: spec for spec in records.specs}
    classes = [(name, i) for i, site in enumerate(records.sites) for name in specs[site].classes]
    names, positions = zip(*classes, strict=True) if classes else ((), ())
    # Bins are of use to predict months; the order of the risks needs none.
    labels = HeadLabels(edges={}, horizons={}, class_names=names, class_site=positions)
    seeds = []
    for folder in folders:
        with np.load(folder / "embeddings.npz") as saved:
            if list(saved["case_id"]) != list(records.table["case_id"]):
                raise SystemExit(f"{folder} was trained on other records than {directory}")
            embeddings = saved["embeddings"][rows]
            heads = {name: saved[name][rows] for name in HEADS if name in saved}
        seeds.append(
            [
                *probe_predictions(embeddings, table, records.sites, ("subtype", "survival")),
                *head_predictions({"embedding": embeddings, **heads}, table, records.sites, labels),
            ]
        )
    return seeds, table


def interval_by_site(seeds: Sequence[Predicted], table: pd.DataFrame) -> dict[str, Interval]:
    """95 % intervals over test cases of the mean over seeds, by site, `POOLED` and `OVERALL`."""
    is_test, site_of = (table["split"] == "test").to_numpy(), table["site"].to_numpy()

    def score(site: str, rows: np.ndarray, drawn: np.ndarray) -> float:
        return float(np.mean([seed.score(site, rows[drawn]).value for seed in seeds]))

    def overall(rows: np.ndarray, drawn: np.ndarray) -> float:
        sites = site_of[rows[drawn]]
        values = [score(site, rows, drawn[sites == site]) for site in cases if site != POOLED]
        known = [value for value in values if not math.isnan(value)]
        return math.fsum(known) / len(known) if known else math.nan

    cases = {site: rows[is_test[rows]] for site, rows in seeds[0].cases.items()}
    intervals = {
        site: bootstrap(functools.partial(score, site, rows), len(rows)) for site, rows in cases.items()
    }
    everywhere = cases[POOLED]
    return intervals | {OVERALL: bootstrap(functools.partial(overall, everywhere), len(everywhere))}


def _cell(mean: float, sd: float, interval: Interval | None) -> str:
    if math.isnan(mean):
        return "-"
    spread = "" if math.isnan(sd) else f" ± {sd:.3f}"
    return f"{mean:.3f}{spread}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")


def baseline_columns(baselines: pd.DataFrame, sites: set[str]) -> list[pd.Series]:
    """The linear baselines: slides, expression, both."""
    columns = []
    for name, features in FEATURES.items():
        cells = {}
        for site in sorted(sites & set(BASELINE_TABLES)):
            known = [pattern.format(BASELINE_TABLES[site]) for pattern in features]
            rows = baselines[(baselines["cohort"] == site) & baselines["features"].isin(known)]
            if len(rows) == 1:
                row = rows.iloc[0]
                cells["subtype", site] = f"{row['balacc_C1']:.3f} / {row['balacc_valC']:.3f}"
                cells["survival", site] = f"{row['cidx_a100']:.3f} / {row['cidx_vala']:.3f}"
        columns.append(pd.Series(cells, name=f"linear {name}", dtype=str))
    return columns


if __name__ == "__main__":
    main()
