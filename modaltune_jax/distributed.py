"""How the processes of a run on several hosts find each other, before jax is used for anything else."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator

from modaltune_jax.types import InputError

_OF_ONE = (
    "--num-processes, --process-id and --coordinator belong together: give all three, or --distributed alone"
)


@dataclasses.dataclass(frozen=True)
class Processes:
    """Where the processes meet.

    Attributes:
      coordinator: `host:port` of process 0; None lets jax find all three, as on TPU pods, under Slurm, MPI
        and Kubernetes, or in `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
      num_processes: how many there are.
      process_id: which one this is, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `from_flags` reads."""
    group = parser.add_argument_group("several hosts (docs/pods.md)")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="one process of several, which find each other: TPU pods, Slurm, MPI, JAX_* variables",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, on hosts that know nothing")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")


def from_flags(options: argparse.Namespace) -> Processes | None:
    """What the flags of `add_flags` say; None for a run of one process.

    Raises:
      InputError: some of the flags that belong together, or a process that cannot be.
    """
    given = (options.coordinator, options.num_processes, options.process_id)
    if all(value is None for value in given):
        return Processes() if options.distributed else None
    if any(value is None for value in given):
        raise InputError(_OF_ONE)
    if not 0 <= options.process_id < options.num_processes:
        raise InputError(
            f"--process-id={options.process_id}, but --num-processes={options.num_processes}: it must be "
            f"from 0 to {options.num_processes - 1}"
        )
    return Processes(*given)


def start(processes: Processes) -> None:
    """Joins the others, and lets process 0 alone speak: what the others print goes nowhere.

    Raises:
      InputError: the others cannot be found.
    """
    import jax

    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(processes.coordinator, processes.num_processes, processes.process_id)
    except (ValueError, RuntimeError) as error:
        where = f"at {processes.coordinator}" if processes.coordinator else "by themselves"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the processes do not find each other {where} ({reason}); give --coordinator, --num-processes "
            "and --process-id"
        ) from error
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (to the end of the process)


def is_first() -> bool:
    """Whether this process writes the files that all would write alike: the first, or the only one."""
    import jax

    return jax.process_index() == 0


@contextlib.contextmanager
def first_goes_first(purpose: str) -> Iterator[None]:
    """The others begin with what is inside when the first process is through, and find the files it wrote."""
    from jax.experimental import multihost_utils

    if not is_first():
        multihost_utils.sync_global_devices(purpose)
    yield
    if is_first():
        multihost_utils.sync_global_devices(purpose)
