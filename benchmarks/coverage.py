"""How often bootstrap intervals cover the truth.

    python benchmarks/coverage.py

Cases are simulated again and again. The truth is the metric on many more of them, or known from how they
are made.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from modaltune_jax.metrics.classification import balanced_accuracy
from modaltune_jax.metrics.concordance import concordance_of_draws
from modaltune_jax.metrics.intervals import BatchedScore, bootstrap

SHARES = np.array([0.6, 0.3, 0.1])
RECALLS = np.array([0.8, 0.7, 0.5])
Simulate = Callable[[np.random.Generator, int], tuple[BatchedScore, np.ndarray]]
"""A metric on simulated cases, and their strata."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets of cases")
    parser.add_argument("--draws", type=int, default=1000, help="draws of the bootstrap")
    parser.add_argument("--level", type=float, default=0.95, help="what the intervals promise")
    options = parser.parse_args()
    truth = np.mean([_whole(concordance, seed, 2000) for seed in range(30)])
    print(f"{'metric':<20}{'cases':>6}{'any':>8}{'strata':>8}")
    for name, simulate, expected, sizes in (
        ("Harrell's c", concordance, truth, (100, 200, 400)),
        ("balanced accuracy", accuracy, RECALLS.mean(), (150, 400)),
    ):
        for num in sizes:
            shares = [
                coverage(simulate, float(expected), num, options, is_stratified=flag)
                for flag in (False, True)
            ]
            print(f"{name:<20}{num:>6}{shares[0]:>8.1%}{shares[1]:>8.1%}", flush=True)


def coverage(
    simulate: Simulate, truth: float, num: int, options: argparse.Namespace, *, is_stratified: bool
) -> float:
    covered = 0
    for seed in range(options.sets):
        score, strata = simulate(np.random.default_rng(seed), num)
        how = {"level": options.level, "num_draws": options.draws, "is_batched": True}
        low, high = bootstrap(
            score, num, strata=strata if is_stratified else None, seed=options.sets + seed, **how
        )
        covered += low <= truth <= high
    return covered / options.sets


def concordance(rng: np.random.Generator, num: int) -> tuple[BatchedScore, np.ndarray]:
    """Exponential times, twice as long on average to censoring as to the death of a middling case."""
    risk = rng.normal(size=num)
    death, end = rng.exponential(20 * np.exp(-risk)), rng.exponential(40.0, num)
    time, event = np.minimum(death, end), death <= end
    return lambda rows: concordance_of_draws(risk, time, event, rows), event


def accuracy(rng: np.random.Generator, num: int) -> tuple[BatchedScore, np.ndarray]:
    """Three classes of which one is rare and hard."""
    labels = rng.choice(3, num, p=SHARES)
    predicted = np.where(rng.random(num) < RECALLS[labels], labels, (labels + 1) % 3)
    return lambda rows: np.array(
        [balanced_accuracy(labels[row], predicted[row]).value for row in rows]
    ), labels


def _whole(simulate: Simulate, seed: int, num: int) -> float:
    return float(simulate(np.random.default_rng(seed), num)[0](np.arange(num)[None])[0])


if __name__ == "__main__":
    main()
