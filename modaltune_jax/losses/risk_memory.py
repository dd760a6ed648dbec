"""Risks of recent batches, so that a small batch is compared with more than itself."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.losses.cox import is_known


class RiskMemory(NamedTuple):
    """A queue of cases with known survival, the oldest first; a pytree of plain arrays for the train state.

    A batch of few cases has risk sets of few cases and often no death. In `join`, remembered cases are
    members of the risk sets of current deaths, and remembered deaths have current cases in their risk sets.
    Their risks are constants, so the gradient with respect to current cases approaches that of the loss over
    the whole cohort. Normalise by the deaths among all rows, remembered ones included.

    Remembered risks are those of the parameters at their time. A case that comes again puts its older risk
    out, where `case` says which it is: it would be compared with itself.

    Attributes:
      risk: as predicted when the case was seen.
      time: to death or last follow-up, in one unit throughout.
      event: 1 death seen, 0 censored.
      strata: 0 throughout if there are none.
      where: False for a place that is still free.
      case: its row in the data set, -1 unknown.
    """

    risk: Float[Array, "n"]
    time: Float[Array, "n"]
    event: Int[Array, "n"]
    strata: Int[Array, "n"]
    where: Bool[Array, "n"]
    case: Int[Array, "n"]

    @classmethod
    def empty(cls, size: int) -> RiskMemory:
        """Room for `size` cases; with 0, `join` returns the batch as it is and `push` keeps nothing."""
        risk, time = jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.float32)
        event, strata = jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.int32)
        return cls(risk, time, event, strata, jnp.zeros(size, bool), jnp.full(size, -1, jnp.int32))

    def join(
        self,
        risk: Float[Array, "b"],
        time: Float[Array, "b"],
        event: Int[Array, "b"],
        strata: Int[Array, "b"] | None = None,
        where: Bool[Array, "b"] | None = None,
        case: Int[Array, "b"] | None = None,
    ) -> RiskMemory:
        """All rows for the loss: the remembered ones, without gradient, then the batch.

        Examples:
          >>> import jax.numpy as jnp
          >>> from modaltune_jax.losses.cox import cox
          >>> batch = jnp.array([0.5]), jnp.array([24.0]), jnp.array([1])
          >>> memory = RiskMemory.empty(2).push(jnp.array([1.5]), jnp.array([36.0]), jnp.array([0]))
          >>> rows = memory.join(*batch)
          >>> print(cox(rows.risk, rows.time, rows.event, rows.where, strata=rows.strata).round(2))
          [0.   0.   1.31]

        Args:
          risk: of the current batch.
          time: NaN unknown.
          event: 1 death seen, 0 censored, -1 unknown.
          strata: None for one stratum.
          where: cases to count; None for all.
          case: row of each in the data set; None, or -1, for unknown.
        """
        strata = jnp.zeros_like(event) if strata is None else strata
        where = jnp.ones(event.shape, bool) if where is None else where
        case = jnp.full(event.shape, -1, jnp.int32) if case is None else case
        batch = (risk, time, event, strata, where, case)
        comes_again = (self.case >= 0) & jnp.isin(self.case, case)
        remembered = jax.lax.stop_gradient(tuple(self._replace(where=self.where & ~comes_again)))
        return RiskMemory(*(jnp.concatenate(rows) for rows in zip(remembered, batch, strict=True)))

    def push(
        self,
        risk: Float[Array, "b"],
        time: Float[Array, "b"],
        event: Int[Array, "b"],
        strata: Int[Array, "b"] | None = None,
        where: Bool[Array, "b"] | None = None,
        case: Int[Array, "b"] | None = None,
    ) -> RiskMemory:
        """The memory after this batch: the newest cases, as many as there is room for.

        Arguments are those of `join`. A case that is masked or of unknown survival takes no place.
        """
        rows = self.join(risk, time, event, strata, where, case)
        rows = rows._replace(where=is_known(rows.time, rows.event, rows.where))
        # False sorts before True: what takes no place goes to the front, and the order of the rest stays.
        newest = jnp.argsort(rows.where, stable=True)[len(risk) :]
        kept = rows.where[newest]
        values = (
            jnp.where(kept, row[newest], 0).astype(old.dtype) for row, old in zip(rows, self, strict=True)
        )
        return RiskMemory(*values)
