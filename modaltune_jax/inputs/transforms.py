"""From raw labels and expression to numbers: AJCC codes, standardisation, survival bins.

Everything that is fitted is fitted on train cases and travels with the checkpoint as `Transforms`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from modaltune_jax.types import Case, InputError, Labels

CLINICAL_COLUMNS = (
    *("stage", "t", "n", "m", "age"),
    *("stage_missing", "t_missing", "n_missing", "m_missing", "age_missing"),
)
"""Order of the last axis of `Batch.clinical`; one vocabulary over all cohorts."""

NOT_GIVEN = frozenset(
    {"", "'--", "--", "na", "n/a", "nan", "none", "unknown", "not reported", "not available", "not evaluated"}
)
"""What sources write, in lower case and without brackets, where they know nothing."""

UNASSESSED = "X"
IN_SITU = "is"

_CODES = {
    "stage": re.compile(r"(?:stage\s*)?(0|x|iv|i{1,3}|is|[1-4])[a-d]?\d?(?:is)?", re.IGNORECASE),
    "t": re.compile(r"[acpry]*t(is|a|[0-4x])(?!\d).*", re.IGNORECASE),
    "n": re.compile(r"[acpry]*n([0-3x])(?!\d).*", re.IGNORECASE),
    "m": re.compile(r"[acpry]*m([01x])(?!\d).*", re.IGNORECASE),
}
_CATEGORIES = {"x": UNASSESSED, "i": "1", "ii": "2", "iii": "3", "iv": "4", "is": IN_SITU, "a": IN_SITU}
_ORDINALS = {"0": 0.0, IN_SITU: 0.5, "1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0}
_HIGHEST = {"stage": 4.0, "t": 4.0, "n": 3.0, "m": 1.0}

# So that the last death itself falls inside the last bin, which is closed on the left.
_EDGE_MARGIN = 1e-6


def ajcc_category(field: str, code: str) -> str:
    """The main category of an AJCC code, subdivisions folded.

    Args:
      field: "stage", "t", "n" or "m".
      code: as written in the source: "Stage IIB", "pT2a", "N0 (i-)", "cM0 (i+)".

    Returns:
      "0" to "4"; "is" for stage IS, Tis and Ta; "X" for not assessable; "" for not given.

    Raises:
      InputError: the code cannot be read.

    >>> ajcc_category("stage", "Stage IIIC"), ajcc_category("t", "pT2a"), ajcc_category("n", "N0 (i-)")
    ('3', '2', '0')
    >>> ajcc_category("m", "MX"), ajcc_category("m", "[Not Available]")
    ('X', '')
    """
    code = code.strip()
    if code.lower().strip("[]") in NOT_GIVEN:
        return ""
    match = _CODES[field].fullmatch(code)
    if match is None:
        raise InputError(
            f"{field} {code!r} is not an AJCC code; write it like 'Stage IIB', 'T2a', or leave it empty"
        )
    main = match.group(1).lower()
    return _CATEGORIES.get(main, main)


def time_bin(time: float, edges: Sequence[float]) -> int:
    """Survival bin of a time; bin i holds edges[i] <= time < edges[i + 1].

    The first bin is open to the left; times at or beyond the last edge get the number `len(edges) - 1`.

    >>> [time_bin(months, (2.0, 10.0, 20.0)) for months in (1.0, 9.9, 10.0, 20.0)]
    [0, 0, 1, 2]
    """
    return int(np.searchsorted(np.asarray(edges[1:]), time, side="right"))


@dataclasses.dataclass(frozen=True, eq=False)
class Transforms:
    """Fitted standardisation and survival bins.

    Attributes:
      expression_mean, expression_std: `[g]` float64 over train cases, unmeasured values ignored; std is 0
        for a gene that is constant or never measured in train.
      age_mean, age_std: years.
      num_bins: survival bins per site.
      survival_edges: site -> num_bins + 1 increasing edges in months; sites without survival have none.
    """

    expression_mean: Float[np.ndarray, "g"]
    expression_std: Float[np.ndarray, "g"]
    age_mean: float
    age_std: float
    num_bins: int
    survival_edges: Mapping[str, tuple[float, ...]]

    def expression(self, raw: Float[np.ndarray, "g"]) -> Float[np.ndarray, "g"]:
        """Standardised expression, float32; 0 for unmeasured (NaN) genes and genes with std 0.

        Raises:
          InputError: another number of genes than at fitting.
        """
        if raw.shape != self.expression_mean.shape:
            raise InputError(
                f"the case has {raw.size} genes but the transforms were fitted on"
                f" {self.expression_mean.size}; use the gene list of the training data"
            )
        usable = np.isfinite(raw) & (self.expression_std > 0)
        scale = np.where(self.expression_std > 0, self.expression_std, 1.0)
        return np.where(usable, (raw - self.expression_mean) / scale, 0.0).astype(np.float32)

    def clinical(self, labels: Labels) -> Float[np.ndarray, "k"]:
        """Stage, T, N, M (ordinals scaled to 0..1), age (z-score), then the five missing flags.

        A value that is missing or not assessable ("NX", "Stage X") is 0 with its flag 1.
        """
        values = [_ordinal(field, getattr(labels, field)) for field in _HIGHEST]
        age = (labels.age - self.age_mean) / self.age_std if self.age_std > 0 else labels.age * 0.0
        encoded = np.asarray([*values, age], np.float32)
        missing = np.isnan(encoded)
        return np.concatenate([np.where(missing, 0.0, encoded), missing]).astype(np.float32)

    def survival_bin(self, site: str, time: float) -> int:
        """Class 0 to num_bins - 1 of a time in months; the last bin is open to the right; -1 for NaN.

        Raises:
          InputError: the site has no bins.
        """
        if math.isnan(time):
            return -1
        if site not in self.survival_edges:
            raise InputError(
                f"site {site!r} has no survival bins, only {sorted(self.survival_edges)} have;"
                " fit the transforms on cases of that site"
            )
        return min(time_bin(time, self.survival_edges[site]), self.num_bins - 1)

    def to_json(self) -> str:
        """JSON text that `from_json` restores to the last bit."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["expression_mean"] = self.expression_mean.tolist()
        fields["expression_std"] = self.expression_std.tolist()
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Transforms:
        """Inverse of `to_json`."""
        fields = json.loads(text)
        for name in ("expression_mean", "expression_std"):
            fields[name] = np.asarray(fields[name], np.float64)
        fields["survival_edges"] = {site: tuple(edges) for site, edges in fields["survival_edges"].items()}
        return cls(**fields)


def fit_transforms(cases: Iterable[Case], *, num_bins: int = 4, bins: str = "train") -> Transforms:
    """Fits on the train cases, in one pass.

    Args:
      cases: of all splits; only `split == "train"` is used.
      num_bins: survival bins, quantiles of time.
      bins: "train" takes the deaths of train cases. "reference" reproduces the public code of ModalTune,
        which takes all splits and censored cases too; it leaks test times and exists for comparison only.
        The standardisation is fitted on train either way.

    Raises:
      InputError: no train case; a site whose times do not give `num_bins` distinct bins.
    """
    if bins not in ("train", "reference"):
        raise InputError(f"bins {bins!r} is not known; write train or reference")
    expressions: list[np.ndarray] = []
    ages: list[float] = []
    times: dict[str, list[float]] = {}
    num_train = 0
    for case in cases:
        labels = case.labels
        has_survival = labels.event != -1 and not math.isnan(labels.time)
        if has_survival and (case.split == "train" or bins == "reference"):
            site_times = times.setdefault(case.site, [])
            if labels.event == 1 or bins == "reference":
                site_times.append(labels.time)
        if case.split != "train":
            continue
        num_train += 1
        ages.append(labels.age)
        if case.expression is not None:
            expressions.append(case.expression)
    if num_train == 0:
        raise InputError("none of the cases is in the train split, so there is nothing to fit on")

    table = np.stack(expressions) if expressions else np.zeros((0, 0), np.float32)
    mean, std = _moments(table)
    age_mean, age_std = _moments(np.asarray(ages)[:, None])
    edges = {site: _edges(site, values, num_bins, bins) for site, values in times.items()}
    return Transforms(mean, std, float(age_mean[0]), float(age_std[0]), num_bins, edges)


def _ordinal(field: str, code: str) -> float:
    """Scaled ordinal of an AJCC code, NaN if missing or not assessable."""
    return _ORDINALS.get(ajcc_category(field, code), math.nan) / _HIGHEST[field]


def _moments(table: Float[np.ndarray, "b g"]) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "g"]]:
    """Mean and population standard deviation per column in float64, NaN ignored; 0 and 0 if all is NaN."""
    known = np.isfinite(table)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, table, 0.0).sum(axis=0, dtype=np.float64) / count
    deviation = np.where(known, table - mean, 0.0)
    std = np.sqrt(np.square(deviation).sum(axis=0) / count)
    # Rounding can give equal values a tiny std, which must not become a divisor.
    low = np.where(known, table, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, table, -np.inf).max(axis=0, initial=-np.inf)
    return mean, np.where(high > low, std, 0.0)


def _edges(site: str, times: Sequence[float], num_bins: int, bins: str) -> tuple[float, ...]:
    edges = np.quantile(times, np.linspace(0.0, 1.0, num_bins + 1)) if times else np.empty(0)
    if edges.size < 2 or np.any(np.diff(edges) <= 0):
        which = "all its times" if bins == "reference" else "its uncensored train times"
        raise InputError(
            f"site {site!r}: {which} ({len(times)}) do not give {num_bins} distinct survival bins;"
            " lower num_bins, add cases, or leave the time of its cases empty"
        )
    edges[0] -= _EDGE_MARGIN
    edges[-1] += _EDGE_MARGIN
    return tuple(edges.tolist())
