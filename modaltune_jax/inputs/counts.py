"""What every join and filter did to the cases: nothing is dropped without a line that says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Count:
    """One step between the source and the records.

    Attributes:
      step: what was done, as a phrase: "rows of clinical.tsv to cases", "slides that belong to no case".
      before, after: how many came in and how many went on.
      reason: why some did not, or by which rule values were changed; one sentence, `""` if nothing happened.
      examples: up to five of the identifiers concerned.
      suspect: a person should look at this: it is told at the head of a report, not only among the joins.
    """

    step: str
    before: int
    after: int
    reason: str = ""
    examples: tuple[str, ...] = ()
    suspect: bool = False

    def __str__(self) -> str:
        line = f"{self.step}: {self.before} -> {self.after}"
        if self.reason:
            line += f"; {self.reason}"
        if self.examples:
            line += f" ({', '.join(self.examples)}{', ...' if len(self.examples) == NUM_EXAMPLES else ''})"
        return line


NUM_EXAMPLES = 5


def some(ids: Iterable[object]) -> tuple[str, ...]:
    """The first few identifiers, for `Count.examples`."""
    return tuple(str(id) for id, _ in zip(ids, range(NUM_EXAMPLES), strict=False))


def plural(amount: int, noun: str) -> str:
    """An amount with its noun.

    >>> plural(1, "row"), plural(0, "case")
    ('1 row', '0 cases')
    """
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def is_nearly_lost(before: int, after: int) -> bool:
    """Whether at most a tenth went on, which is hardly what was meant."""
    return before > 0 and after <= before // 10
