"""How far the default survival bins change the label sentences from the published ones.

    python benchmarks/sentences.py records/pancancer

Prints for every cohort the edges of its bins in months, fitted on uncensored training cases (the default) and
on all cases of all splits (`data.bins="reference"`, as published), and how many survival sentences differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modaltune_jax.inputs.prompts import sentences
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import fit_transforms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, help="folder of records")
    parser.add_argument("--num-bins", type=int, default=4)
    arguments = parser.parse_args()
    records = Records(arguments.records)
    cases = [records.without_slides(i) for i in range(len(records))]
    edges = {
        bins: fit_transforms(cases, num_bins=arguments.num_bins, bins=bins, clinical=()).survival_edges
        for bins in ("train", "reference")
    }
    print("| cohort | edges, train deaths | edges, reference | sentences that differ |\n|---|---|---|---|")
    for spec in records.specs:
        words = [
            [
                sentences(case.labels, spec, edges[bins].get(spec.name))[-1]
                for case in cases
                if case.site == spec.name
            ]
            for bins in edges
        ]
        differ = sum(a != b for a, b in zip(*words, strict=True))
        months = [" ".join(f"{abs(edge):.1f}" for edge in edges[bins].get(spec.name, ())) for bins in edges]
        print(f"| {spec.name} | {months[0]} | {months[1]} | {differ} of {len(words[0])} |")


if __name__ == "__main__":
    main()
