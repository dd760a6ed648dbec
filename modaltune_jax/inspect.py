"""`python -m modaltune_jax.inspect PATH...`: what is in a folder of slides, and whether it can be packed."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modaltune_jax import cohort_flags, command
from modaltune_jax.types import InputError

if TYPE_CHECKING:
    from modaltune_jax.inspection.cohort_inspection import Inspected, Looking

_OF_COHORTS = (
    *("cohort", "labels", "endpoint", "columns", "variables", "expression", "aliases", "gene_sets"),
    *("splits", "split"),
)
_OF_SLIDES = ("layout", "patch_size_level0", "coords_unit", "mpp", "encoder")
_EPILOG = """\
a PATH is one of:
  a folder of tile features (TRIDENT, CLAM, Prov-GigaPath, STAMP, ModalTune, npy/npz, zarr); all such folders
    together are one cohort
  a folder of packed records
  the root of the compact TCGA benchmark (splits/ beside wsi_hipt/); --cohort chooses, default all

With --cohort and tables the cases are joined as `pack` would join them, and nothing is written.

exit code:
  0  it can be packed
  1  it can, but slides or cases would be left out, results would leak, or a number looks wrong
  2  it cannot be packed, or a path, a flag or a table is wrong

  python -m modaltune_jax.inspect features/
  python -m modaltune_jax.inspect features/ --cohort brca --labels gdc:clinical.tsv,slide.tsv --pictures maps/
  python -m modaltune_jax.inspect @cohort.args --sample 50
  python -m modaltune_jax.inspect records/brca --json report.json"""


def main(arguments: Sequence[str]) -> None:
    """Looks at everything, prints it, and ends with the exit code of the worst.

    Raises:
      InputError: whatever is wrong with paths, flags or tables.
      SystemExit: the exit code, where it is not 0.
    """
    options = _parser().parse_args(arguments)
    # Before the imports that take a second, so that a mistyped path is told at once.
    found = _inspect(_sort(options.paths), options)
    inspections = [one.inspection for one in found]

    from modaltune_jax.inspection import as_json, text

    if options.json == "-":
        command.say(as_json.to_json(inspections))
    else:
        reports = [text.to_text(inspection, show_all=options.all) for inspection in inspections]
        command.say("\n\n\n".join(reports))
        if options.json:
            as_json.write_json(Path(options.json), inspections)
    if options.pictures:
        _draw(found, Path(options.pictures), options)
    code = max(inspection.verdict.exit_code for inspection in inspections)
    if code:
        sys.exit(code)


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: nothing was written")


class _Groups(argparse.Namespace):
    """Paths by what they hold."""

    features: list[str]
    records: list[Path]
    benchmarks: list[Path]


def _sort(paths: Sequence[str]) -> _Groups:
    groups = _Groups(features=[], records=[], benchmarks=[])
    for name in paths:
        path = Path(name)
        if not path.exists():
            raise InputError(f"{path}: no such folder; name a folder of tile features or of packed records")
        if (path / "metadata.json").is_file():
            groups.records.append(path)
        elif (path / "wsi_hipt").is_dir() and (path / "splits").is_dir():
            groups.benchmarks.append(path)
        else:
            groups.features.append(name)
    return groups


def _inspect(groups: _Groups, options: argparse.Namespace) -> list[Inspected]:
    from modaltune_jax.inspection import cohort_inspection

    options.features = [*options.features, *groups.features]
    has_features = bool(options.features or options.expression)
    if not has_features:
        _refuse_useless(groups, options)
    looking = cohort_inspection.Looking(options.sample, options.workers, sys.stderr.isatty())
    found = [cohort_inspection.inspect_records(path, looking) for path in groups.records]
    for root in groups.benchmarks:
        gene_sets = Path(options.gene_sets) if options.gene_sets else None
        found.append(cohort_inspection.inspect_benchmark(root, options.cohort, gene_sets, looking))
    if has_features:
        found.append(_inspect_features(options, looking))
    return found


def _refuse_useless(groups: _Groups, options: argparse.Namespace) -> None:
    """Flags of feature files where there are none."""
    if not (groups.records or groups.benchmarks):
        raise InputError("there is nothing to look at: name a folder, see --help")
    useful = ("cohort", "gene_sets") if groups.benchmarks else ()
    for flag in (*_OF_COHORTS, *_OF_SLIDES):
        if getattr(options, flag) and flag not in useful:
            raise InputError(
                f"--{flag.replace('_', '-')} has no meaning without a folder of tile features: leave it out"
            )


def _inspect_features(options: argparse.Namespace, looking: Looking) -> Inspected:
    from modaltune_jax.inspection import cohort_inspection

    if any(getattr(options, flag) for flag in _OF_COHORTS):
        source = cohort_flags.read_source(options)
        return cohort_inspection.inspect_cohort(source, options.features or [options.expression], looking)
    from modaltune_jax.inputs.readers.slide_file import SlideOptions
    from modaltune_jax.inputs.slide_files import find_slides

    fields = [field.name for field in dataclasses.fields(SlideOptions)]
    slide_options = SlideOptions(**{name: getattr(options, name) for name in fields})
    files = [file for folder in options.features for file in find_slides(Path(folder), slide_options)]
    return cohort_inspection.inspect_features(files, slide_options, options.features, looking)


def _draw(found: Sequence[Inspected], folder: Path, options: argparse.Namespace) -> None:
    from modaltune_jax.inspection.cohort_figure import draw_cohort
    from modaltune_jax.inspection.tile_maps import draw_tile_maps

    for number, one in enumerate(found, start=1):
        place = folder / str(number) if len(found) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        draw_cohort(one.table, one.inspection.slides, place / "cohort.png")
        paths = draw_tile_maps(
            one.looked,
            one.source,
            place,
            note="Positions are invented." if one.inspection.kind == "tcga_bench" else "",
            workers=options.workers,
            progress=sys.stderr.isatty(),
        )
        print(
            f"pictures in {place}: {', '.join(['cohort.png', *(path.name for path in paths)])}",
            file=sys.stderr,
        )


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.inspect",
        description="Says what is in folders of slides and tables, what is wrong, and if it can be packed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        fromfile_prefix_chars="@",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="see below; --features adds further ones")
    parser.add_argument(
        "--json", metavar="FILE", help="everything, for machines; - prints it instead of the text"
    )
    parser.add_argument(
        "--pictures", metavar="DIR", help="draw tile maps, worst slides first, and the cohort"
    )
    parser.add_argument("--all", action="store_true", help="print all slides and cases, not only the first")
    parser.add_argument("--sample", type=int, metavar="N", help="look at N slides, evenly spaced")
    parser.add_argument(
        "--workers", type=_workers, metavar="N", help="processes that read slides; default: by cores"
    )
    cohort_flags.add_flags(parser)
    return parser


def _workers(text: str) -> int:
    if not text.isdigit() or text == "0":
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


if __name__ == "__main__":
    run()
