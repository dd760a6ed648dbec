"""A seeded pan-cancer cohort with planted signal: invented cases for tests, demonstrations and power checks.

Every case has four hidden signs, each visible in one modality only and balanced against the others in every
split (exactly so if `cases_per_site` is a multiple of 80)::

    sign  modality    how it shows
    u     image       a share of the tiles is moved along prototype 0
    v     expression  genes of pathway 0 go up and those of pathway 1 down, or the reverse
    p     image       a share of the tiles is moved along prototype 1
    q     expression  genes of pathway 2 go up and those of pathway 3 down, or the reverse

Sites differ in what the subtype and the risk of death follow::

    site        subtype  needs             log hazard  needs             stage
    sim_breast  u        image alone       q           expression alone  yes
    sim_brain   v        expression alone  p           image alone       no
    sim_lung    u v      both together     p q         both together     yes
    sim_kidney  u v      both together     p q         both together     yes

A product of signs is independent of each factor: at sim_lung and sim_kidney a classifier that sees one
modality can only toss a coin, and one that adds a score of each gets at most three of four cases right. Site,
tissue types and a disturbance of each case show in both modalities. Times of death follow a Weibull law;
censoring is independent of them and takes 40 to 50 %. Stage and age follow the log hazard loosely.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.types import Case, InputError, Labels, Slide

_SHARE = 0.4  # of the tiles that carry a prototype
_IMAGE_EFFECT = 2.0  # length of a prototype, in units of the tiles' noise
_EXPRESSION_EFFECT = 1.0  # shift of a planted gene, in units of its noise
_LOG_HAZARD = 1.2
_CENSORING = 1.3  # mean censoring time in units of a site's time scale
_SPLITS = ("train", "train", "val", "train", "test")


@dataclasses.dataclass(frozen=True)
class SimulationConfig:
    """Sizes of the simulated cohort.

    Attributes:
      seed: not negative.
      cases_per_site: at least 16; three fifths train, a fifth each validation and test.
      feature_dim: width of a tile's features.
      num_genes: at least 40.
      num_pathways: at least 4, of which four carry signal.
      mean_tiles: tiles per case, on average; cases differ by a factor of three or so.
      missing_expression, missing_slides: share of the cases without; none lacks both.
      noise: factor of all disturbance; 0.5 makes every sign plain, 3 hides most.
    """

    seed: int = 0
    cases_per_site: int = 160
    feature_dim: int = 64
    num_genes: int = 240
    num_pathways: int = 24
    mean_tiles: int = 100
    missing_expression: float = 0.1
    missing_slides: float = 0.05
    noise: float = 1.0

    def __post_init__(self) -> None:
        least = {
            "seed": 0,
            "cases_per_site": 16,
            "feature_dim": 2,
            "num_genes": 40,
            "num_pathways": 4,
            "mean_tiles": 4,
        }
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(f"simulation.{name} is {getattr(self, name)}; it must be at least {value}")
        if self.missing_expression + self.missing_slides > 1:
            raise InputError("simulation.missing_expression and missing_slides exceed 1 together; lower one")


@dataclasses.dataclass(frozen=True)
class _Site:
    """How a site's labels follow from the signs (u, v, p, q) at the named positions.

    Several signs are multiplied, or taken side by side: then each pair is a subtype, and the risks add.
    """

    spec: CohortSpec
    subtype: tuple[int, ...]
    risk: tuple[int, ...]
    patch_size_level0: int
    months: float
    is_staged: bool = True
    is_side_by_side: bool = False


def _spec(organ: str, *classes: str) -> CohortSpec:
    diagnoses = [f"simulated {name} carcinoma of the {organ}" for name in classes]
    return CohortSpec(
        name=f"sim_{organ}",
        title=f"Simulated {organ}",
        organ=organ,
        projects=(f"SIM-{organ.upper()}",),
        classes=classes,
        diagnoses={diagnosis: i for i, diagnosis in enumerate(diagnoses)},
    )


_SITES = (
    _Site(_spec("breast", "ductal", "lobular"), (0,), (3,), 256, 60.0),
    _Site(_spec("brain", "diffuse", "nodular"), (1,), (2,), 512, 24.0, is_staged=False),
    _Site(
        _spec("lung", "glandular", "squamous", "small cell", "large cell"),
        *((0, 1), (2, 3), 256, 36.0),
        is_side_by_side=True,
    ),
    _Site(_spec("kidney", "clear cell", "papillary"), (0, 1), (2, 3), 256, 72.0),
)


@dataclasses.dataclass(frozen=True)
class Planted:
    """What all cases of a simulation share; the same config draws the same.

    Attributes:
      prototypes: `[2, d]` directions in feature space, orthonormal; added to tiles by the signs u and p.
      tissues: `[4, d]` centres of the tissue types that every case mixes.
      features: `[s, d]` offset of each site's tiles.
      expression: `[s, g]` baseline of each site, log2 scale.
      gene_sets: pathways; numbers 0 to 3 carry the signs and are disjoint, others overlap at random.
    """

    prototypes: Float[np.ndarray, "2 d"]
    tissues: Float[np.ndarray, "4 d"]
    features: Float[np.ndarray, "s d"]
    expression: Float[np.ndarray, "s g"]
    gene_sets: GeneSets


def planted(config: SimulationConfig) -> Planted:
    """The planted directions and pathways, for oracles that know where to look."""
    rng = np.random.default_rng((config.seed, len(_SITES)))
    dim, num_genes = config.feature_dim, config.num_genes
    size = num_genes // 10
    genes = rng.permutation(num_genes)
    groups = [genes[k * size : (k + 1) * size] for k in range(4)]
    for _ in range(config.num_pathways - 4):
        groups.append(rng.choice(num_genes, rng.integers(3, 2 * size), replace=False))
    baseline = rng.uniform(3.0, 9.0, num_genes)
    return Planted(
        prototypes=np.linalg.qr(rng.normal(size=(dim, 2)))[0].T,
        tissues=rng.normal(scale=0.5, size=(4, dim)),
        features=rng.normal(scale=0.3, size=(len(_SITES), dim)),
        expression=baseline + rng.normal(scale=0.5, size=(len(_SITES), num_genes)),
        gene_sets=GeneSets(
            tuple(f"SIM_PATHWAY_{k:03d}" for k in range(config.num_pathways)),
            tuple(np.sort(group).astype(np.int32) for group in groups),
        ),
    )


def simulate(config: SimulationConfig) -> tuple[list[Case], list[str], GeneSets, list[CohortSpec]]:
    """Cases of four sites with their genes, pathways and cohort definitions; see the table above."""
    common = planted(config)
    genes = [f"SIMG{g:05d}" for g in range(config.num_genes)]
    cases = [case for s in range(len(_SITES)) for case in _site_cases(s, common, config)]
    return cases, genes, common.gene_sets, [site.spec for site in _SITES]


def _site_cases(s: int, common: Planted, config: SimulationConfig) -> list[Case]:
    site = _SITES[s]
    rng = np.random.default_rng((config.seed, s))
    cases = []
    # The 16 combinations of signs come in turn, and each goes through the splits in turn.
    for number, i in enumerate(rng.permutation(config.cases_per_site)):
        signs = 1 - 2 * ((i % 16) >> np.arange(4) & 1)
        case_id = f"{site.spec.name.replace('_', '-')}-{number:04d}".upper()
        lacks = rng.choice(
            ["nothing", "expression", "slides"],
            p=[
                1 - config.missing_expression - config.missing_slides,
                config.missing_expression,
                config.missing_slides,
            ],
        )
        slides = _slides(rng, case_id, s, signs, common, config)
        expression = _expression(rng, s, signs, common, config)
        labels = _labels(rng, site, signs)
        cases.append(
            Case(
                id=case_id,
                site=site.spec.name,
                split=_SPLITS[(i // 16 + i % 16) % len(_SPLITS)],
                slides=() if lacks == "slides" else slides,
                expression=None if lacks == "expression" else expression,
                labels=labels,
            )
        )
    return cases


def _slides(
    rng: np.random.Generator,
    case_id: str,
    s: int,
    signs: Int[np.ndarray, "4"],
    common: Planted,
    config: SimulationConfig,
) -> tuple[Slide, ...]:
    """One to three slides of mixed tissue on which tiles, drawn at random, carry the image's prototypes."""
    spread = 0.4
    num_tiles = max(4, round(config.mean_tiles * math.exp(rng.normal(-(spread**2) / 2, spread))))
    num_slides = min(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]), num_tiles // 4)
    mixture = rng.dirichlet(np.full(len(common.tissues), 5.0))
    features = common.tissues[rng.choice(len(common.tissues), num_tiles, p=mixture)] + common.features[s]
    features += config.noise * rng.normal(size=features.shape)
    features += config.noise * rng.normal(scale=0.3, size=config.feature_dim)
    for sign, prototype in zip(signs[[0, 2]], common.prototypes, strict=True):
        features[rng.random(num_tiles) < _SHARE] += _IMAGE_EFFECT * sign * prototype
    size = _SITES[s].patch_size_level0
    return tuple(
        Slide(
            id=f"{case_id}-{k}",
            features=part.astype(np.float16),
            coords=(_tissue_cells(rng, len(part)) * size + rng.integers(0, 4 * size, 2)).astype(np.int32),
            patch_size_level0=size,
        )
        for k, part in enumerate(np.array_split(features, num_slides))
    )


def _tissue_cells(rng: np.random.Generator, num_tiles: int) -> Int[np.ndarray, "l 2"]:
    """Distinct (column, row) cells of a round piece of tissue with holes, row by row."""
    side = math.ceil(math.sqrt(2.5 * num_tiles)) + 1
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    holes = rng.uniform(0, side, size=(3, 2))
    is_hole = (np.linalg.norm(cells[:, None] - holes, axis=-1) < side / 7).any(axis=1)
    # Cells in holes come last, so that they are taken only if the tissue would not suffice without.
    distance = np.linalg.norm(cells - side / 2, axis=-1) + rng.uniform(0, 1, len(cells)) + 2 * side * is_hole
    return cells[np.sort(np.argsort(distance)[:num_tiles])]


def _expression(
    rng: np.random.Generator, s: int, signs: Int[np.ndarray, "4"], common: Planted, config: SimulationConfig
) -> Float[np.ndarray, "g"]:
    """log2(TPM + 1)-like values with the expression's signs in pathways 0 to 3."""
    values = common.expression[s] + config.noise * rng.normal(size=config.num_genes)
    directions = (signs[1], -signs[1], signs[3], -signs[3])
    for direction, group in zip(directions, common.gene_sets.groups, strict=False):
        values[group] += _EXPRESSION_EFFECT * direction + config.noise * rng.normal(scale=0.5)
    return np.maximum(values, 0.0).astype(np.float32)


def _labels(rng: np.random.Generator, site: _Site, signs: Int[np.ndarray, "4"]) -> Labels:
    is_negative = signs[list(site.subtype)] < 0
    if site.is_side_by_side:
        subtype = int(2 * is_negative[0] + is_negative[1])
        risk = float(signs[list(site.risk)].sum()) / math.sqrt(2.0)
    else:
        subtype = int(is_negative.sum() % 2)
        risk = float(np.prod(signs[list(site.risk)]))
    death = rng.weibull(1.5) * math.exp(-_LOG_HAZARD * risk / 1.5)
    censoring = rng.exponential(_CENSORING)
    severity = 0.6 * risk + rng.normal()
    stage = int(np.searchsorted([-0.8, 0.3, 1.3], severity))
    codes = (
        f"Stage {('I', 'II', 'III', 'IV')[stage]}",
        f"T{np.clip(stage + rng.integers(0, 3), 1, 4)}",
        f"N{np.clip(stage + rng.integers(-1, 1), 0, 3)}",
        f"M{int(stage == 3)}",
    )
    known = (rng.random(4) > 0.1) & site.is_staged
    age = np.clip(rng.normal(60.0 + 2.0 * risk, 11.0), 25.0, 90.0)
    return Labels(
        diagnosis=list(site.spec.diagnoses)[subtype],
        subtype=subtype,
        time=site.months * min(death, censoring),
        event=int(death <= censoring),
        **{
            name: code if k else ""
            for name, code, k in zip(("stage", "t", "n", "m"), codes, known, strict=True)
        },
        age=math.nan if rng.random() < 0.05 else round(float(age), 1),
    )
