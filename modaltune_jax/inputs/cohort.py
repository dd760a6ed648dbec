"""What a cohort is: its definition file, its diagnosis words, and the checks its cases must pass."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.inputs.ajcc import NOT_GIVEN, ajcc_category
from modaltune_jax.inputs.text_file import read_toml
from modaltune_jax.locations import shipped
from modaltune_jax.types import Case, InputError, Labels, Slide

SPLITS = ("train", "val", "test")
_SPLIT_WORDS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_FEATURE_DTYPES = ("float16", "bfloat16", "float32")
_OLDEST = 120.0  # years; an age in days is far above


@dataclasses.dataclass(frozen=True)
class CohortSpec:
    """A cancer as the method sees it; the content of one TOML file.

    Attributes:
      name: site name in lower case, `Case.site`.
      title: for people.
      organ: the word for the location in the sentences.
      projects: source projects, e.g. "TCGA-LUAD".
      classes: subtype names in class order.
      diagnoses: clean diagnosis -> class index; other diagnoses have no class (-1).
      diagnosis_prefix: word put before every diagnosis that does not start with it; or a table of such words
        by project, where the diagnosis does not tell the projects apart.
      synonyms: plain diagnosis (lower case, no ", nos") -> the words used for it.
    """

    name: str
    title: str
    organ: str
    projects: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    diagnoses: Mapping[str, int] = dataclasses.field(default_factory=dict)
    diagnosis_prefix: str | Mapping[str, str] = ""
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def subtype(self, diagnosis: str) -> int:
        """Class index of a clean diagnosis, -1 if it has none."""
        return self.diagnoses.get(diagnosis, -1)


def split_of_word(word: str) -> str | None:
    """The split that a word means, None if it means none.

    >>> split_of_word("Train"), split_of_word("validation"), split_of_word("dev")
    ('train', 'val', None)
    """
    plain = word.strip().lower()
    plain = _SPLIT_WORDS.get(plain, plain)
    return plain if plain in SPLITS else None


def clean_diagnosis(raw: str, spec: CohortSpec, project: str = "") -> str:
    """Diagnosis words as the sentences use them, `""` if not given; cleaning twice changes nothing.

    Lower case, ", NOS" dropped, then the cohort's synonyms and prefix.

    Args:
      raw: as the source writes it.
      spec: of the cohort.
      project: of the case, e.g. "TCGA-READ". Needed where the prefix depends on it; without it, or for a
        project that the definition does not list, a diagnosis stays without prefix, and so without a class.

    >>> lung = CohortSpec(name="nsclc", title="Lung", organ="lung", diagnosis_prefix="lung")
    >>> clean_diagnosis("Squamous cell carcinoma, NOS", lung)
    'lung squamous cell carcinoma'
    >>> prefix = {"TCGA-COAD": "colon", "TCGA-READ": "rectal"}
    >>> bowel = CohortSpec(name="coadread", title="Bowel", organ="colorectal", diagnosis_prefix=prefix)
    >>> clean_diagnosis("Adenocarcinoma, NOS", bowel, "TCGA-READ")
    'rectal adenocarcinoma'
    """
    words = _plain(raw)
    if words.strip("[]") in NOT_GIVEN:
        return ""
    words = spec.synonyms.get(words, words)
    if isinstance(spec.diagnosis_prefix, str):
        prefix, prefixes = spec.diagnosis_prefix, [spec.diagnosis_prefix]
    else:
        prefix, prefixes = spec.diagnosis_prefix.get(project, ""), list(spec.diagnosis_prefix.values())
    if prefix and not words.startswith(tuple(f"{known} " for known in prefixes)):
        words = f"{prefix} {words}"
    return words


def find_spec(name: str) -> CohortSpec:
    """The definition of a cohort by name ("brca"), or of a `.toml` file by path.

    Raises:
      InputError: no such cohort, or its file is wrong.
    """
    if name.endswith(".toml"):
        return load_spec(name)
    folder = shipped("data")
    path = folder / f"{name}.toml"
    if path.is_file():
        return load_spec(path)
    known = sorted(file.stem for file in folder.glob("*.toml"))
    raise InputError(f"unknown cohort {name!r}: known are {known}; or give the path of a .toml file")


def load_spec(path: str | Path) -> CohortSpec:
    """Reads a cohort definition.

    Raises:
      InputError: the file is missing, is not TOML, or a field is missing, unknown or inconsistent.
    """
    path = Path(path)
    return _parse(read_toml(path, "give the TOML file of a cohort definition"), str(path))


def check_cases(cases: Iterable[Case], specs: Sequence[CohortSpec] | None = None) -> list[str]:
    """Checks what would otherwise spoil training or leak between splits.

    Args:
      cases: the whole data set; read once.
      specs: if given, every site must have one, and subtypes must be among its classes.

    Returns:
      Warnings about cases that are kept: slides without tiles, cases without slides and expression.

    Raises:
      InputError: on the first fault, with the case and, where it applies, the slide.
    """
    num_classes = None if specs is None else {spec.name: len(spec.classes) for spec in specs}
    split_of: dict[str, str] = {}
    owner_of: dict[str, str] = {}
    width: int | None = None
    num_genes: int | None = None
    warnings = []
    for case in cases:
        _check_split(case, split_of)
        _check_labels(case, num_classes)
        for slide in case.slides:
            _check_slide(case, slide, owner_of, width)
            width = slide.features.shape[1]
            if not len(slide.features):
                warnings.append(f"case {case.id}, slide {slide.id}: has no tiles; kept as empty")
        if case.expression is not None:
            _check_expression(case, case.expression, num_genes)
            num_genes = case.expression.size
        elif not case.slides:
            warnings.append(
                f"case {case.id}: has neither slides nor expression; kept with both marked absent"
            )
    return warnings


def _check_split(case: Case, split_of: dict[str, str]) -> None:
    if case.split not in SPLITS:
        raise InputError(f"case {case.id}: split {case.split!r} is none of {', '.join(SPLITS)}")
    other = split_of.get(case.id)
    if other == case.split:
        raise InputError(f"case {case.id}: is twice in {case.split}; join its slides into one case")
    if other is not None:
        raise InputError(f"case {case.id}: is in both {other} and {case.split}; a case must be in one split")
    split_of[case.id] = case.split


def _check_slide(case: Case, slide: Slide, owner_of: dict[str, str], width: int | None) -> None:
    where = f"case {case.id}, slide {slide.id}"
    owner = owner_of.setdefault(slide.id, case.id)
    if owner != case.id:
        raise InputError(f"{where}: belongs to case {owner} too; a slide must belong to one case")
    features, coords = slide.features, slide.coords
    if features.ndim != 2 or features.dtype.name not in _FEATURE_DTYPES:
        raise InputError(
            f"{where}: features are {features.dtype.name} of shape {features.shape};"
            f" they must be [tiles, width] in {', '.join(_FEATURE_DTYPES)}"
        )
    if coords.shape != (len(features), 2):
        raise InputError(f"{where}: {len(features)} tiles but coordinates of shape {coords.shape}")
    if slide.patch_size_level0 <= 0:
        raise InputError(f"{where}: patch_size_level0 is {slide.patch_size_level0}; it must be positive")
    if width is not None and features.shape[1] != width:
        raise InputError(
            f"{where}: features are {features.shape[1]} wide but those before it {width};"
            " extract all slides with the same tile encoder"
        )
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise InputError(f"{where}: tile {row} has NaN or infinite features; extract the slide again")


def _check_expression(case: Case, expression: np.ndarray, num_genes: int | None) -> None:
    if num_genes is not None and expression.size != num_genes:
        raise InputError(
            f"case {case.id}: has {expression.size} genes but those before it {num_genes};"
            " give every case the same gene list, NaN where a gene was not measured"
        )
    if np.isinf(expression).any():
        gene = int(np.argmax(np.isinf(expression)))
        raise InputError(f"case {case.id}: expression of gene {gene} is infinite; was log taken of 0?")


def _check_labels(case: Case, num_classes: Mapping[str, int] | None) -> None:
    labels = case.labels
    fault = _survival_fault(labels)
    if fault is None and not (np.isnan(labels.age) or 0 <= labels.age <= _OLDEST):
        fault = f"age {labels.age} is not in years, 0 to {_OLDEST:.0f}"
    if fault is not None:
        raise InputError(f"case {case.id}: {fault}")
    for field in ("stage", "t", "n", "m"):
        try:
            ajcc_category(field, getattr(labels, field))
        except InputError as error:
            raise InputError(f"case {case.id}: {error}") from None
    if num_classes is None:
        return
    if case.site not in num_classes:
        raise InputError(f"case {case.id}: unknown site {case.site!r}; the cohorts are {sorted(num_classes)}")
    if not -1 <= labels.subtype < num_classes[case.site]:
        raise InputError(
            f"case {case.id}: subtype {labels.subtype}, but {case.site} has {num_classes[case.site]} classes"
        )


def _survival_fault(labels: Labels) -> str | None:
    if labels.event not in (-1, 0, 1):
        return f"event is {labels.event}; write 1 for a death, 0 for censored, -1 for unknown"
    if labels.event != -1 and np.isnan(labels.time):
        return f"event is {labels.event} but the time is missing; give the months, or set the event to -1"
    if labels.time < 0 or np.isinf(labels.time):
        return f"time is {labels.time} months; it must be finite and not negative"
    return None


def _plain(diagnosis: str) -> str:
    """Lower case, single spaces, without the "not otherwise specified" of ICD-O terms."""
    words = " ".join(diagnosis.lower().split())
    while words.endswith(", nos"):
        words = words.removesuffix(", nos").rstrip()
    return words


def _parse(fields: dict[str, Any], source: str) -> CohortSpec:
    known = [field.name for field in dataclasses.fields(CohortSpec)]
    unknown = sorted(set(fields) - set(known))
    absent = sorted({"name", "title", "organ", "classes", "diagnoses"} - set(fields))
    if unknown or absent:
        raise InputError(f"{source}: unknown fields {unknown}, missing fields {absent}; known are {known}")
    _check_types(fields, source)
    if not _NAME.fullmatch(fields["name"]):
        raise InputError(
            f"{source}: name is {fields['name']!r}; write small letters, digits, - or _, such as 'brca'"
        )
    classes = tuple(fields["classes"])
    if len({" ".join(name.lower().split()) for name in classes}) < len(classes) or "" in classes:
        raise InputError(f"{source}: classes are {list(classes)}; give each once, with a name")
    for diagnosis, name in fields["diagnoses"].items():
        if name not in classes:
            raise InputError(f"{source}: diagnosis {diagnosis!r} has class {name!r}, which is not in classes")
    fields["projects"] = tuple(fields.get("projects", ()))
    fields["classes"] = classes
    fields["diagnoses"] = {diagnosis: classes.index(name) for diagnosis, name in fields["diagnoses"].items()}
    spec = CohortSpec(**fields)
    _check_words(spec, source)
    return spec


def _check_words(spec: CohortSpec, source: str) -> None:
    """Every diagnosis must be what cleaning leaves, in every project, or it would fit no case."""
    projects: Iterable[str] = ("",)
    if not isinstance(spec.diagnosis_prefix, str):
        projects = spec.diagnosis_prefix
        unknown = sorted(set(projects) - set(spec.projects))
        if unknown:
            raise InputError(
                f"{source}: diagnosis_prefix has the projects {unknown}, which are not in projects"
            )
    for project in projects:
        for words in spec.diagnoses:
            clean = clean_diagnosis(words, spec, project)
            if clean != words:
                raise InputError(f"{source}: diagnosis {words!r} is not clean; write {clean!r}")
        for words in spec.synonyms:
            if _plain(words) != words:
                raise InputError(f"{source}: synonym {words!r} is not plain; write {_plain(words)!r}")
            clean = clean_diagnosis(words, spec, project)
            again = clean_diagnosis(clean, spec, project)
            if again != clean:
                becomes = spec.synonyms[words]
                raise InputError(
                    f"{source}: synonym {words!r} is {becomes!r}, which is not clean; write {again!r}"
                )


def _check_types(fields: Mapping[str, Any], source: str) -> None:
    for name, value in fields.items():
        if name in ("projects", "classes"):
            is_right, wanted = isinstance(value, list), "a list of strings"
            items = value if is_right else ()
        elif name in ("diagnoses", "synonyms"):
            is_right, wanted = isinstance(value, dict), "a table of strings"
            items = value.values() if is_right else ()
        elif name == "diagnosis_prefix":
            is_right, wanted = isinstance(value, str | dict), "a string, or a table of strings by project"
            items = value.values() if isinstance(value, dict) else ()
        else:
            is_right, wanted, items = isinstance(value, str), "a string", ()
        if not is_right or not all(isinstance(item, str) for item in items):
            raise InputError(f"{source}: {name} is {value!r}; it must be {wanted}")
