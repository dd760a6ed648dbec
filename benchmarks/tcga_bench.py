"""Finished runs beside linear baselines, on cases that have both slides and expression.

    python benchmarks/tcga_bench.py --baselines FOLDER/baselines_common_cases.csv runs/hipt_pancancer_longnet

Probes are fitted again on the embeddings that a run has saved: on the training cases with both modalities,
and scored on the test cases with both. The baselines (PCA, then logistic regression or ridge Cox) come with
the compiled TCGA tables that `modaltune_jax/inputs/readers/tcga_bench.py` reads. They have two numbers: with
a fixed penalty, as our probes have, and with the penalty picked on the validation split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from modaltune_jax.inputs.records import Records
from modaltune_jax.probes import probe_table

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
    parser.add_argument("runs", nargs="+", type=Path, help="workdirs of finished experiments")
    arguments = parser.parse_args()
    columns = [run_column(run) for run in arguments.runs]
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


def run_column(run: Path) -> pd.Series:
    """Mean ± sd over the seeds that are finished, by (target, site)."""
    finished = sorted(path.parent for path in run.glob("*/seed*/embeddings.npz"))
    if not finished:
        raise SystemExit(f"{run} holds no finished run")
    tables = [probes_on_complete_cases(folder) for folder in finished]
    values = pd.concat(tables).groupby(["target", "site"], sort=False)["value"]
    cells = {
        key: f"{group.mean():.3f} ± {group.std():.3f}" if len(group) > 1 else f"{group.mean():.3f}"
        for key, group in values
        if key[0] != "site"
    }
    return pd.Series(cells, name=f"{run.name} ({len(finished)} seeds)")


def probes_on_complete_cases(folder: Path) -> pd.DataFrame:
    """Test probes of one run, fitted and scored on cases with both modalities."""
    config = json.loads((folder / "config.json").read_text())
    table = Records(config["data"]["directory"]).table
    with np.load(folder / "embeddings.npz") as saved:
        if list(saved["case_id"]) != list(table["case_id"]):
            raise SystemExit(f"{folder} was trained on other records than {config['data']['directory']}")
        embeddings = saved["embeddings"]
    complete = (table["num_tiles"] > 0) & table["has_expression"]
    rows = np.flatnonzero(complete)
    sites = tuple(table["site"].unique())
    return probe_table(embeddings[rows], table.iloc[rows].reset_index(drop=True), sites, ("test",))


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
