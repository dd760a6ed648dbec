"""`python -m modaltune_jax.example DIR`: a simulated cohort as files, to try `inspect` and `pack` on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import command
from modaltune_jax.types import InputError

_FLAGS = """\
# What this cohort consists of, for `inspect` and `pack`.
{cohorts}
--features {folder}/features --case-of-slide {folder}/slides.csv
--labels csv:{folder}/labels.csv --columns {folder}/columns.toml
--expression csv:{folder}/expression.csv --gene-sets {folder}/gene_sets.csv
--splits {folder}/splits.csv
"""
_NEXT = """\
{num_slides} slides, labels and expression of {num_cases} simulated cases. Look at them, pack them, train:

  python -m modaltune_jax.inspect @{folder}/cohort.args
  python -m modaltune_jax.pack @{folder}/cohort.args --out {folder}/records
  python -m modaltune_jax.main --config=configs/pancancer.py:demo --workdir=runs/example \\
    --config.data.source=records --config.data.directory={folder}/records"""


def main(arguments: Sequence[str]) -> None:
    """Writes the cohort of the demo, or a smaller one, as the files that labs have.

    Raises:
      InputError: the folder exists or has a comma in its name, or a size is too small.
    """
    parser = command.Parser(prog="python -m modaltune_jax.example", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="to be created")
    parser.add_argument("--cases-per-site", type=int, default=80, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if "," in str(options.folder):
        raise InputError(f"{options.folder}: a comma separates the files of --labels; choose a name without")

    from modaltune_jax.inputs.simulate import SimulationConfig, simulate
    from modaltune_jax.packing.export import export

    # The sizes of the demo, whose config trains on them.
    config = SimulationConfig(
        seed=options.seed,
        cases_per_site=options.cases_per_site,
        feature_dim=16,
        num_genes=40,
        num_pathways=4,
        mean_tiles=16,
        noise=0.5,
    )
    cases, genes, gene_sets, specs = simulate(config)
    export(options.folder, cases, genes=genes, gene_sets=gene_sets, specs=specs, encoder="simulation")
    folder = shlex.quote(str(options.folder))
    cohorts = "\n".join(f"--cohort {folder}/{spec.name}.toml" for spec in specs)
    flags = _FLAGS.format(folder=folder, cohorts=cohorts)
    (options.folder / "cohort.args").write_text(flags, encoding="utf-8")
    num_slides = sum(len(case.slides) for case in cases)
    command.say(_NEXT.format(folder=folder, num_slides=num_slides, num_cases=len(cases)))


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: remove the folder before you try again")


if __name__ == "__main__":
    run()
