"""All processes of a run do the same after the same step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

ASK_EVERY = 4
"""Steps between two questions, and between a question and its answer."""

GO_ON, SAVE, STOP = range(3)
"""What a process may wish for after a step; STOP saves too."""


class Agreement:
    """The most that any process wishes for: signals and clocks differ between hosts, steps must not.

    One process gets what it wishes for at once. Several ask every `ASK_EVERY` steps: a reduction over the
    mesh is sent after the step, and read as many steps later, when it has long been computed. So nobody
    waits, and a wish is granted to all of them after 2 x `ASK_EVERY` steps at most.
    """

    def __init__(self, mesh: Mesh):
        self._asked: jax.Array | None = None
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))

    def after(self, step: int, wish: int) -> int:
        """What to do after a step; every process calls this after every step."""
        if jax.process_count() == 1:
            return wish
        if step % ASK_EVERY:
            return GO_ON
        answer = GO_ON if self._asked is None else int(self._asked)
        # What is being done need not be wished for again.
        wish = GO_ON if answer == SAVE and wish == SAVE else wish
        devices = self._sharding.mesh.size
        wishes = jax.make_array_from_callback(
            (devices,), self._sharding, lambda _: np.array([wish], np.int32)
        )
        self._asked = self._largest(wishes)
        return answer
