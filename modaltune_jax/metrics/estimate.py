"""A number that may not exist, with the reason when it does not."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric on a set of cases.

    Attributes:
      value: the metric, NaN if it cannot be estimated; never a stand-in such as 0 or 0.5.
      num: cases that entered.
      num_events: deaths among them; 0 for metrics that know no deaths.
      reason: why `value` is NaN, or a remark on how it came about; `""` if there is nothing to say.
    """

    value: float
    num: int
    num_events: int = 0
    reason: str = ""

    @classmethod
    def missing(cls, reason: str, num: int = 0, num_events: int = 0) -> Estimate:
        """Not estimable, and why."""
        return cls(math.nan, num, num_events, reason)

    @property
    def is_estimable(self) -> bool:
        return not math.isnan(self.value)
