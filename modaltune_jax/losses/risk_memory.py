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

    Remembered risks are those of the parameters at their time. In a memory as long as an epoch every case
    meets its own older risk; in a shorter one only a case seen late in one epoch and early in the next does.

    Attributes:
      risk: as predicted when the case was seen.
      time: to death or last follow-up, in one unit throughout.
      event: 1 death seen, 0 censored.
      strata: 0 throughout if there are none.
      where: False for a place that is still free.
    """

    risk: Float[Array, "n"]
    time: Float[Array, "n"]
    event: Int[Array, "n"]
    strata: Int[Array, "n"]
    where: Bool[Array, "n"]

    @classmethod
    def empty(cls, size: int) -> RiskMemory:
        """Room for `size` cases; with 0, `join` returns the batch as it is and `push` keeps nothing."""
        risk, time = jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.float32)
        event, strata = jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.int32)
        return cls(risk, time, event, strata, jnp.zeros(size, bool))

    def join(
        self,
        risk: Float[Array, "b"],
        time: Float[Array, "b"],
        event: Int[Array, "b"],
        strata: Int[Array, "b"] | None = None,
        where: Bool[Array, "b"] | None = None,
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
        """
        strata = jnp.zeros_like(event) if strata is None else strata
        where = jnp.ones(event.shape, bool) if where is None else where
        batch = (risk, time, event, strata, where)
        remembered = jax.lax.stop_gradient(tuple(self))
        return RiskMemory(*(jnp.concatenate(rows) for rows in zip(remembered, batch, strict=True)))

    def push(
        self,
        risk: Float[Array, "b"],
        time: Float[Array, "b"],
        event: Int[Array, "b"],
        strata: Int[Array, "b"] | None = None,
        where: Bool[Array, "b"] | None = None,
    ) -> RiskMemory:
        """The memory after this batch: the newest cases, as many as there is room for.

        Arguments are those of `join`. A case that is masked or of unknown survival takes no place.
        """
        rows = self.join(risk, time, event, strata, where)
        rows = rows._replace(where=is_known(rows.time, rows.event, rows.where))
        # False sorts before True: what takes no place goes to the front, and the order of the rest stays.
        newest = jnp.argsort(rows.where, stable=True)[len(risk) :]
        kept = rows.where[newest]
        values = (
            jnp.where(kept, row[newest], 0).astype(old.dtype) for row, old in zip(rows, self, strict=True)
        )
        return RiskMemory(*values)
