"""From raw expression, clinical values and times to numbers: standardisation, vocabularies, survival bins.

Everything that is fitted is fitted on train cases and travels with the checkpoint as `Transforms`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from modaltune_jax.inputs.clinical import DEFAULT_COLUMNS, ClinicalEncoder, fit_clinical
from modaltune_jax.types import Case, InputError

# So that the last death itself falls inside the last bin, which is closed on the left.
_EDGE_MARGIN = 1e-6


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
      clinical: encoder of the clinical values.
      num_bins: survival bins per site.
      survival_edges: site -> num_bins + 1 increasing edges in months; sites without survival have none.
    """

    expression_mean: Float[np.ndarray, "g"]
    expression_std: Float[np.ndarray, "g"]
    clinical: ClinicalEncoder
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
        fields = dataclasses.asdict(self)
        fields["expression_mean"] = self.expression_mean.tolist()
        fields["expression_std"] = self.expression_std.tolist()
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Transforms:
        """Inverse of `to_json`.

        Raises:
          InputError: written by a version with other fields.
        """
        fields = json.loads(text)
        try:
            clinical = ClinicalEncoder.from_dict(fields["clinical"])
        except (KeyError, TypeError):
            clinical = None
        if clinical is None or set(fields) != {field.name for field in dataclasses.fields(cls)}:
            raise InputError(
                f"transforms with the fields {sorted(fields)} are of another version of modaltune_jax; train"
                " again, or use the version that wrote them"
            )
        fields["clinical"] = clinical
        for name in ("expression_mean", "expression_std"):
            fields[name] = np.asarray(fields[name], np.float64)
        fields["survival_edges"] = {site: tuple(edges) for site, edges in fields["survival_edges"].items()}
        return cls(**fields)


def fit_transforms(
    cases: Iterable[Case],
    *,
    num_bins: int = 4,
    bins: str = "train",
    clinical: Sequence[str] = DEFAULT_COLUMNS,
    kinds: Mapping[str, str] | None = None,
) -> Transforms:
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
    rows: list[Case] = []
    times: dict[str, list[float]] = {}
    for case in cases:
        labels = case.labels
        has_survival = labels.event != -1 and not math.isnan(labels.time)
        if has_survival and (case.split == "train" or bins == "reference"):
            site_times = times.setdefault(case.site, [])
            if labels.event == 1 or bins == "reference":
                site_times.append(labels.time)
        if case.split != "train":
            continue
        rows.append(dataclasses.replace(case, slides=()))
        if case.expression is not None:
            expressions.append(case.expression)
    if not rows:
        raise InputError("none of the cases is in the train split, so there is nothing to fit on")

    table = np.stack(expressions) if expressions else np.zeros((0, 0), np.float32)
    mean, std = _moments(table)
    edges = {site: _edges(site, values, num_bins, bins) for site, values in times.items()}
    return Transforms(mean, std, fit_clinical(rows, clinical, kinds or {}), num_bins, edges)


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
