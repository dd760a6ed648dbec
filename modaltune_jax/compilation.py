"""How programs are compiled: the options of the compiler that are ours to set."""

from __future__ import annotations


def compiler_options(platform: str) -> dict[str, str]:
    """For `jax.jit(..., compiler_options=...)` of programs with a backward pass, on "cpu", "gpu" or "tpu".

    Left to itself the CPU compiler orders operations so that many can run side by side. What the backward
    pass forms again it then forms before that pass begins, and holds it: five times the memory with `remat`.
    Nothing is gained, since a matrix product keeps all cores busy by itself.
    """
    if platform == "cpu":
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return {}
