"""Seconds until a new process has run its first training step, part by part, with a cold and a warm cache.

    python benchmarks/first_step.py

The step is that of `benchmarks/step.py`, of published size, with a short bag so that computing it takes
little. Each line is a process of its own; "cold" begins with an empty compilation cache, "warm" with what
"cold" left there. Seconds are counted from the start of Python; in brackets those of the processor. Records
and targets are not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

COLUMNS = ("cache", "layers", "imports", "model", "traced", "compiled or loaded", "first step ran")


def measure(tiles: int, is_scanned: bool, is_small: bool) -> list[tuple[float, float]]:
    """Seconds of the clock and of the processor at the end of each part, in this process."""
    began = time.time() - time.process_time()  # near enough: nothing but imports happened so far
    passed = []

    def note() -> None:
        passed.append((time.time() - began, time.process_time()))

    from modaltune_jax import command

    command.prepare_jax(-1)
    import jax
    import step

    from modaltune_jax import train  # noqa: F401  what a run imports

    note()
    setting = step.Setting("gigapath", tiles, 1, "float32", False, is_scanned, 1, is_small, True)
    _, train_step, state, frozen, batch = step.make(setting)
    jax.block_until_ready((state, frozen))
    note()
    traced = train_step.trace(state, frozen, batch)
    note()
    compiled = traced.lower().compile()
    note()
    jax.block_until_ready(compiled(state, frozen, batch))
    note()
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=255)
    parser.add_argument("--quick", action="store_true", help="toy sizes: tries the script, no result")
    parser.add_argument("--one", choices=("scanned", "one by one"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.tiles, options.one == "scanned", options.quick)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    quick = ["--quick"] if options.quick else []
    for layers in ("one by one", "scanned"):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                command = [sys.executable, __file__, "--one", layers, "--tiles", str(options.tiles), *quick]
                environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                passed = json.loads(done.stdout.splitlines()[-1])
                cells = [f"{wall:.1f} ({busy:.1f})" for wall, busy in passed]
                print(f"| {' | '.join([state, layers, *cells])} |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
