"""Joined cases to records, by several processes, so that a run that was killed goes on where it stopped.

Every case becomes a file of its own (`packed_case`), then the files of a split are put together (`shards`),
then what lies beside them is written, and one rename puts all into place. Every step leaves whole files or
nothing, and begins by looking what there is; so nothing is done twice, and the result does not depend on
interruptions.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from modaltune_jax.inputs.cohort import SPLITS, CohortSpec
from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.storage import examples
from modaltune_jax.inputs.storage.record_folder import (
    DESCRIPTION,
    FORMAT,
    NAME,
    Header,
    index_row,
    write_sidecars,
)
from modaltune_jax.inputs.storage.tfds_writer import write_dataset_info
from modaltune_jax.packing.common_layout import CommonLayout, common_layout
from modaltune_jax.packing.join import Joined
from modaltune_jax.packing.manifest import Packed, write_documents
from modaltune_jax.packing.packed_case import (
    CaseTask,
    PackedSlide,
    Verdict,
    pack_case,
    plan_case,
    read_case,
    read_verdict,
)
from modaltune_jax.packing.planned_case import PlannedCase, Quarantined
from modaltune_jax.packing.process_pool import Lost, map_unordered
from modaltune_jax.packing.shards import CaseRecord, Shard, plan_shards, split_size, write_shard
from modaltune_jax.packing.work_folder import WorkFolder, check_out, sync
from modaltune_jax.types import InputError

Result = TypeVar("Result")

_BYTES_PER_SECOND, _SLIDES_PER_SECOND = 2e8, 200
"""What one process packs, about."""
_MIN_SECONDS, _BYTES_PER_SECOND_AT_WORST = 60.0, 5e6
NO_GENE_SETS = "--expression needs --gene-sets, a CSV of pathway and gene: the model sees pathways"
AGAIN = "the same command goes on where this one stopped"


@dataclasses.dataclass(frozen=True)
class Effort:
    """How to pack; none of it changes the records.

    Attributes:
      workers: number of processes; 0 works in this one, which a damaged file may take down.
      is_strict: stop at the first case or slide that cannot be packed.
      progress: show bars.
    """

    workers: int = 0
    is_strict: bool = False
    progress: bool = False


class Origin(NamedTuple):
    """Where records come from, for the manifest.

    Attributes:
      specs: one a site.
      options: how slides are read.
      tables: files other than slides.
      flags: as given by the user.
      splits_recipe: as of `Splits`.
    """

    specs: Sequence[CohortSpec]
    options: SlideOptions
    tables: Sequence[Path]
    flags: Mapping[str, Any]
    splits_recipe: str


def pack(joined: Joined, origin: Origin, out: Path, effort: Effort) -> Packed | None:
    """Packs the cases of a cohort.

    Args:
      joined: from `join.join`.
      origin: where they come from.
      out: folder of records, to be created.
      effort: processes, strictness.

    Returns:
      What was packed; None if an earlier run had all but finished, and only its work folder was left.

    Raises:
      InputError: something is missing, `out` exists or is being packed, or no case is left; with
        `is_strict`, the first case or slide that would go into quarantine.
    """
    work = WorkFolder(out)
    if work.is_finished:
        with work.locked():
            work.remove()
        return None
    check_out(out)
    _check_complete(joined, effort)
    with _told_in_a_sentence(out), work.locked():
        work.records.mkdir(exist_ok=True)
        tasks = [plan_case(case, origin.options, work.cases) for case in joined.cases]
        verdicts = _pack_cases(tasks, effort)
        chosen = _choose(tasks, verdicts, origin, effort)
        if not chosen.tasks:
            work.remove()
            raise InputError(
                f"no case is left to pack; the first of {len(chosen.quarantined)} reasons:"
                f" {chosen.quarantined[0].reason}"
            )
        shards = _pack_shards(chosen.tasks, chosen.verdicts, work, effort)
        return _finish(joined, origin, chosen, shards, work)


class _Chosen(NamedTuple):
    """What is packed in the end."""

    tasks: list[CaseTask]
    verdicts: dict[str, Verdict]
    quarantined: list[Quarantined]
    layout: CommonLayout


def _check_complete(joined: Joined, effort: Effort) -> None:
    if effort.is_strict and joined.quarantined:
        case_id, slide_id, _, reason = joined.quarantined[0]
        raise InputError(f"{f'case {case_id}' if case_id else f'slide {slide_id}'}: {reason}")
    if joined.genes and not joined.gene_sets.names:
        raise InputError(NO_GENE_SETS)
    without = [case.id for case in joined.cases if not case.split]
    if without:
        raise InputError(
            f"{len(without)} cases have no split (first {', '.join(some(without))}): give --splits FILE or"
            " --split RECIPE"
        )


def _pack_cases(tasks: Sequence[CaseTask], effort: Effort) -> dict[str, Verdict]:
    """Verdicts by key, of this run or of an earlier one."""
    verdicts = {task.key: verdict for task in tasks if (verdict := read_verdict(task.verdict))}
    for verdict in verdicts.values():
        _stop_if_strict(verdict.faults, effort)
    todo = [task for task in tasks if task.key not in verdicts]
    done = sum(task.num_bytes for task in tasks if task.key in verdicts)
    # Large cases first, or the last process would work alone at the end.
    todo.sort(key=lambda task: -task.num_bytes)
    with _bar("packing", sum(task.num_bytes for task in tasks), done, effort) as advance:
        crashed: list[CaseTask] = []
        for task, result in map_unordered(pack_case, todo, _workers(todo, effort), _case_name, _seconds):
            if isinstance(result, Lost):
                crashed.append(task)
                continue
            _stop_if_strict(result.faults, effort)
            verdicts[task.key] = result
            advance(task.num_bytes)
        for task in crashed:
            result = _only(map_unordered(pack_case, [_without_crashes(task)], 1, _case_name, _seconds))
            _stop_if_strict(result.faults, effort)
            verdicts[task.key] = result
            advance(task.num_bytes)
    return verdicts


def _without_crashes(task: CaseTask) -> CaseTask:
    """A case whose process crashed, less the slides that make one crash when read alone."""
    alone = [
        task._replace(case=dataclasses.replace(task.case, slides=(slide,))) for slide in task.case.slides
    ]
    crashing = [
        (file.id, f"{file.path}: {result.reason}, so it is damaged; copy it or extract it again")
        for read, result in map_unordered(read_case, alone, 1, _case_name, _seconds)
        if isinstance(result, Lost)
        for file in read.case.slides
    ]
    return task._replace(unreadable=(*task.unreadable, *crashing))


def _only(results: Iterable[tuple[Any, Result | Lost]]) -> Result:
    """The result of a task that must not be lost."""
    for task, result in results:
        if isinstance(result, Lost):
            raise InputError(
                f"{_case_name(task)}: {result.reason}, and none of its slides alone does; {AGAIN}"
            )
        return result
    raise AssertionError("one task has one result")


def _workers(tasks: Sequence[CaseTask], effort: Effort) -> int:
    """No more processes than there is work for: each takes a moment to start."""
    num_slides = sum(len(task.case.slides) for task in tasks)
    seconds = sum(task.num_bytes for task in tasks) / _BYTES_PER_SECOND + num_slides / _SLIDES_PER_SECOND
    return min(effort.workers, 1 + int(seconds))


def _seconds(task: CaseTask) -> float:
    """How long a process may compute at a case before something is wrong."""
    return _MIN_SECONDS + task.num_bytes / _BYTES_PER_SECOND_AT_WORST


def _choose(
    tasks: Sequence[CaseTask], verdicts: dict[str, Verdict], origin: Origin, effort: Effort
) -> _Chosen:
    """Leaves out slides unlike most, and cases of which nothing is left; the rest has its records."""
    layout = common_layout(slide for task in tasks for slide in verdicts[task.key].slides)
    quarantined: list[Quarantined] = []
    chosen: list[CaseTask] = []
    again: list[CaseTask] = []
    for task in tasks:
        verdict = verdicts[task.key]
        misfits = [
            Quarantined(task.case.id, slide.slide_id, slide.path, reason)
            for slide in verdict.slides
            if (reason := layout.misfit(slide))
        ]
        fitting = [slide for slide in verdict.slides if not layout.misfit(slide)]
        empty = _why_empty(task.case, fitting)
        faults = [*verdict.faults, *misfits, *empty]
        _stop_if_strict(faults, effort)
        quarantined += faults
        if empty:
            continue
        if misfits:
            again.append(_with_slides(task, {slide.slide_id for slide in fitting}, origin))
            chosen.append(again[-1])
        else:
            chosen.append(task)
    if again:
        verdicts |= _pack_cases(again, effort)
        changed = [task.case.id for task in again if verdicts[task.key].faults]
        if changed:
            raise InputError(f"case {changed[0]}: its files changed while they were packed; {AGAIN}")
    return _Chosen(chosen, verdicts, quarantined, layout)


def _why_empty(case: PlannedCase, slides: Sequence[PackedSlide]) -> list[Quarantined]:
    """A line of quarantine if nothing can be seen of a case with only these of its slides."""
    if case.expression is not None or any(slide.num_tiles for slide in slides):
        return []
    lost = len(slides) < len(case.slides)
    what = "no slide of it can be used" if lost else "its slides have no tiles"
    return [Quarantined(case.id, "", "", f"{what}, and it has no expression")]


def _pack_shards(
    tasks: Sequence[CaseTask], verdicts: Mapping[str, Verdict], work: WorkFolder, effort: Effort
) -> dict[str, list[Shard]]:
    """Writes the files of all splits."""
    shards = {}
    for split in SPLITS:
        records = [
            CaseRecord(task.case.id, task.record, verdicts[task.key].num_bytes, verdicts[task.key].crc32)
            for task in tasks
            if task.case.split == split
        ]
        if records:
            shards[split] = plan_shards(split, records, work)
    planned = [shard for of_split in shards.values() for shard in of_split]
    done = [shard for shard in planned if shard.is_done]
    todo = [shard for shard in planned if not shard.is_done]
    work.sweep_records({shard.key for shard in done}, {shard.name for shard in done})
    needed = {record.path.name for shard in todo for record in shard.records}
    work.sweep_cases(needed | {f"{key}.json" for key in verdicts})
    # Records of files that a change of the sources undid.
    lost = [task for task in tasks if task.record.name in needed and not task.record.exists()]
    for task in lost:
        _only(map_unordered(pack_case, [task], min(1, effort.workers), _case_name, _seconds))
    total, finished = (sum(shard.num_bytes for shard in some_) for some_ in (planned, done))
    with _bar("writing", total, finished, effort) as advance:
        workers = effort.workers if sum(shard.num_bytes for shard in todo) > _BYTES_PER_SECOND else 0
        for shard, _ in map_unordered(write_shard, todo, workers, _shard_name):
            advance(shard.num_bytes)
    return shards


def _finish(
    joined: Joined, origin: Origin, chosen: _Chosen, shards: Mapping[str, Sequence[Shard]], work: WorkFolder
) -> Packed:
    """Writes what lies beside the records, and puts all into place."""
    slides = [slide for task in chosen.tasks for slide in chosen.verdicts[task.key].slides]
    encoder = chosen.layout.encoder or origin.options.encoder
    header = Header(
        joined.genes,
        joined.gene_sets,
        origin.specs,
        f"pack {origin.splits_recipe}",
        encoder,
        joined.variables,
    )
    write_dataset_info(
        work.records,
        name=NAME,
        version=f"{FORMAT}.0.0",
        description=DESCRIPTION,
        features=examples.features_dict(*chosen.layout.tiles),
        splits={split: split_size(files) for split, files in shards.items()},
    )
    rows, expression = [], []
    for task in chosen.tasks:
        lengths = [slide.num_tiles for slide in chosen.verdicts[task.key].slides]
        rows.append(index_row(task.case, lengths, len(joined.genes)))
        expression.append(task.case.expression)
    write_sidecars(work.records, rows, expression, *chosen.layout.tiles, header)
    quarantined = sorted({*joined.quarantined, *chosen.quarantined})
    counts = [*joined.counts, *_counts(joined, chosen)]
    packed = write_documents(
        work.records,
        splits={task.case.id: task.case.split for task in chosen.tasks},
        splits_recipe=origin.splits_recipe,
        slides=slides,
        quarantined=quarantined,
        counts=counts,
        tables=origin.tables,
        flags=origin.flags,
    )
    for path in work.records.iterdir():
        sync(path)
    work.put_into_place()
    return packed


def _counts(joined: Joined, chosen: _Chosen) -> list[Count]:
    """What reading the slides did."""
    found = [slide.id for case in joined.cases for slide in case.slides]
    slides = [slide for task in chosen.tasks for slide in chosen.verdicts[task.key].slides]
    packed = {slide.slide_id for slide in slides}
    lost = [id for id in found if id not in packed]
    filled = {slide.slide_id for slide in slides if slide.num_tiles}
    cases = {task.case.id for task in chosen.tasks}
    gone = [case.id for case in joined.cases if case.id not in cases]
    quarantine = "the others are in quarantine"
    return [
        Count(
            "slides of cases to slides packed",
            len(found),
            len(packed),
            quarantine if lost else "",
            some(lost),
        ),
        Count(
            "slides packed to slides with tiles",
            len(packed),
            len(filled),
            "the others are packed as empty" if len(filled) < len(packed) else "",
            some(sorted(packed - filled)),
        ),
        Count("cases to cases packed", len(joined.cases), len(cases), quarantine if gone else "", some(gone)),
    ]


def _with_slides(task: CaseTask, ids: set[str], origin: Origin) -> CaseTask:
    slides = tuple(slide for slide in task.case.slides if slide.id in ids)
    return plan_case(dataclasses.replace(task.case, slides=slides), origin.options, task.folder)


def _stop_if_strict(faults: Sequence[Quarantined], effort: Effort) -> None:
    if effort.is_strict and faults:
        fault = faults[0]
        where = f"case {fault.case_id}, slide {fault.slide_id}" if fault.slide_id else f"case {fault.case_id}"
        raise InputError(f"{where}: {fault.reason}; what is finished is kept")


def _case_name(task: CaseTask) -> str:
    return f"case {task.case.id}"


def _shard_name(shard: Shard) -> str:
    return shard.name


@contextlib.contextmanager
def _bar(what: str, total: int, done: int, effort: Effort) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(
        desc=what,
        total=total,
        initial=done,
        unit="B",
        unit_scale=True,
        disable=None if effort.progress else True,
    ) as bar:
        yield bar.update


@contextlib.contextmanager
def _told_in_a_sentence(out: Path) -> Iterator[None]:
    """A full disk and the like are the user's to mend."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or out} cannot be written ({error.strerror or error}): mend that; {AGAIN}"
        ) from error
