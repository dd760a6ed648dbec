"""`python -m modaltune_jax.pack --cohort C --features DIR ... --out DIR`: a cohort to records, once."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modaltune_jax import command
from modaltune_jax.inputs.counts import plural
from modaltune_jax.packing.work_folder import check_out
from modaltune_jax.types import InputError

if TYPE_CHECKING:
    from modaltune_jax.packing.manifest import Packed
    from modaltune_jax.packing.planned_case import Quarantined

_EXAMPLES = """\
Joins tile features and tables into cases and writes them as records that training reads. What cannot be used
goes to quarantine.csv in the records, with the reason. A run that was stopped or killed goes on where it
stopped when the same command is given again. Look at the cohort first: python -m modaltune_jax.inspect.

exit code:
  0  packed, or verified; what could not be used is in quarantine.csv
  1  packed, but more than half of the cases, or of their slides, could not be; or --sources found none
  2  not packed: a flag or a file is wrong; the sentence says what to do

  python -m modaltune_jax.pack --cohort brca --features features/brca \\
      --labels gdc:clinical.tsv,slide.tsv --expression xena:HiSeqV2.gz --gene-sets pathways.csv \\
      --split stratified:0.7,0.15,0.15:0 --out records/brca
  python -m modaltune_jax.pack --cohort my_cohort.toml --features features --case-of-slide '(P[0-9]+)-' \\
      --labels excel:patients.xlsx --columns columns.toml --splits splits.csv --out records/mine
  python -m modaltune_jax.pack --verify records/brca --sources"""

_SHOWN_REASONS = 5
_INTERRUPTED = "stopped: what is finished is kept, and the same command goes on from there"


def main(arguments: Sequence[str]) -> None:
    """Packs a cohort, or verifies one that was packed.

    Raises:
      InputError: whatever is wrong with flags or files.
    """
    options = _parser().parse_args(arguments)
    if options.verify:
        return _verify(options)
    if options.sources:
        raise InputError("--sources belongs to --verify: leave it out")
    if not options.out:
        raise InputError("--out is missing: name the folder of records to write, e.g. --out records/brca")
    if options.workers < 1:
        raise InputError(f"--workers is {options.workers}; it must be at least 1")
    if options.expression and not options.gene_sets:
        from modaltune_jax.packing.pack import NO_GENE_SETS

        raise InputError(NO_GENE_SETS)
    check_out(Path(os.path.normpath(options.out)))
    _pack(options)


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted=_INTERRUPTED)


def _pack(options: argparse.Namespace) -> None:
    # Imports that take a second come after the flags are found to be right.
    from modaltune_jax.cohort_flags import given_flags, read_source, table_paths
    from modaltune_jax.packing.join import join
    from modaltune_jax.packing.pack import Effort, Origin, pack

    source = read_source(options)
    joined = join(source)
    noted = [count for count in joined.counts if count.suspect or count in joined.unlisted]
    for count in noted:
        command.say(f"note: {count}")
    for count in joined.counts:
        if count not in noted:
            command.say(count)
    recipe = source.splits.recipe if source.splits is not None else "column of the labels"
    origin = Origin(source.specs, source.options, table_paths(options), given_flags(options), recipe)
    out = Path(os.path.normpath(options.out))
    start = time.perf_counter()
    packed = pack(joined, origin, out, Effort(options.workers, options.strict, not options.quiet))
    if packed is None:
        command.say(f"{out} was finished by the run before; its work folder is removed")
    else:
        counts = packed.counts[len(joined.counts) :]
        for count in counts:
            command.say(count)
        command.say(_summary(packed, out, time.perf_counter() - start))
        if any(2 * count.after < count.before for count in counts):
            sys.exit(1)


def _verify(options: argparse.Namespace) -> None:
    if options.out or options.cohort or options.features:
        raise InputError("--verify reads records that are there: leave out what says how to pack")
    from modaltune_jax.packing.verification import verify

    found = verify(Path(options.verify), with_sources=options.sources, progress=not options.quiet)
    for line in found.lines:
        command.say(line)
    if not found.is_complete:
        sys.exit(1)


def _summary(packed: Packed, out: Path, seconds: float) -> str:
    num_slides_out = len(packed.quarantined) - packed.num_quarantined_cases
    lines = [
        f"{out}: {packed.num_cases} cases of {packed.num_slides} slides, {packed.num_tiles:,} tiles,"
        f" {packed.record_bytes / 1e6:,.1f} MB in {seconds:.1f} s"
        f" ({packed.source_bytes / 1e6 / seconds:.0f} MB/s)"
    ]
    if packed.quarantined:
        out_of = f"{plural(packed.num_quarantined_cases, 'case')} and {plural(num_slides_out, 'slide')}"
        lines.append(f"QUARANTINE: left out are {out_of}, see {out / 'quarantine.csv'}")
        reasons = Counter(map(_without_path, packed.quarantined)).most_common()
        lines += [f"  {number} x {reason}" for reason, number in reasons[:_SHOWN_REASONS]]
        if len(reasons) > _SHOWN_REASONS:
            lines.append(f"  and {plural(len(reasons) - _SHOWN_REASONS, 'more reason')}")
    return "\n".join(lines)


def _without_path(line: Quarantined) -> str:
    """A reason that is the same for all files of which it is true."""
    path = line.path or "\0"
    return line.reason.removeprefix(path).removeprefix(":").strip().replace(path, "the file")


def _parser() -> argparse.ArgumentParser:
    from modaltune_jax.cohort_flags import add_flags

    parser = command.Parser(
        prog="python -m modaltune_jax.pack",
        description=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        fromfile_prefix_chars="@",
    )
    add_flags(parser)
    parser.add_argument("--out", default="", metavar="DIR", help="folder of records to write")
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first case or slide that would go to quarantine"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="processes, each with room for the largest case (default %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    parser.add_argument("--verify", default="", metavar="DIR", help="read records again and check everything")
    parser.add_argument(
        "--sources",
        action="store_true",
        help="with --verify: hash the source files too, where they still are",
    )
    return parser


if __name__ == "__main__":
    run()
