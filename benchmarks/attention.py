"""Implementations of attention beside each other, on the device at hand: time, and distance to the reference.

    python benchmarks/attention.py --queries 1025 5120 --json attention.json

As many keys as queries, of which each row sees half or more; 16 heads of 48, as Prov-GigaPath.
Implementations that this device cannot run are left out. The distance is of output, log-sum-exp and
gradients to "xla" in float32 on the same numbers, as a fraction of the largest value: a kernel that
computes something else shows here.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modaltune_jax.models.encoders.attention import IMPLEMENTATIONS, attend
from modaltune_jax.types import InputError


def main() -> None:
    arguments = parse_arguments()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    rows, left_out = [], set()
    for queries, dtype, name in itertools.product(
        arguments.queries, arguments.dtypes, arguments.implementations
    ):
        try:
            rows.append(measure(name, queries, dtype, arguments))
        except InputError as error:
            left_out.add(str(error))
    print(to_markdown(rows))
    for reason in sorted(left_out):
        print(f"\nleft out: {reason}")
    if arguments.json:
        device = jax.devices()[0].device_kind
        arguments.json.write_text(json.dumps({"device": device, "rows": rows}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, nargs="+", default=[1_025, 5_120])
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    names = [name for name in IMPLEMENTATIONS if name != "auto"]
    parser.add_argument("--implementations", nargs="+", default=names, choices=names)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--width", type=int, default=48, help="of a head")
    parser.add_argument("--rounds", type=int, default=5, help="the median of as many is shown")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    return parser.parse_args()


def measure(name: str, queries: int, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times an implementation, forward and with gradients.

    Raises:
      InputError: it cannot run here.
    """
    rng = np.random.default_rng(0)
    shape = (arguments.rows, queries, arguments.heads, arguments.width)
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4)]
    kv_len = jnp.asarray(rng.integers(queries // 2, queries, arguments.rows, endpoint=True), jnp.int32)
    attention = functools.partial(attend, kv_len=kv_len, implementation=name)
    outputs = jax.jit(with_gradients(attention))(*arrays)
    reference = with_gradients(functools.partial(attend, kv_len=kv_len, implementation="xla"))
    expected = jax.jit(reference)(*(x.astype(jnp.float32) for x in arrays))
    flops = 4 * arguments.heads * arguments.width * queries * int(kv_len.sum())
    forward = seconds(jax.jit(attention), arrays[:3], arguments.rounds)
    both = seconds(jax.jit(with_gradients(attention)), arrays, arguments.rounds)
    return {
        **{"implementation": name, "queries": queries, "dtype": dtype},
        **{"forward_s": forward, "with_gradients_s": both},
        "gflops": 3.5 * flops / both / 1e9,
        "distance": max(distance(ours, other) for ours, other in zip(outputs, expected, strict=True)),
    }


def with_gradients(attention: Any) -> Any:
    """`attention` of q, k, v and the three gradients for a cotangent of its output."""

    def run(q, k, v, do):
        (o, lse), pullback = jax.vjp(attention, q, k, v)
        return o, lse, *pullback((do, jnp.zeros_like(lse)))

    return run


def seconds(function: Any, arrays: list[jax.Array], rounds: int) -> float:
    """The median over `rounds`, after one that compiles."""
    jax.block_until_ready(function(*arrays))
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def distance(ours: jax.Array, expected: jax.Array) -> float:
    """The largest difference, as a fraction of the largest value."""
    return float(jnp.abs(ours.astype(jnp.float32) - expected).max() / jnp.abs(expected).max())


def to_markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| implementation | queries | dtype | forward ms | with gradients ms | GFLOP/s | distance |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [
        f"| {row['implementation']} | {row['queries']:,} | {row['dtype']} | {1e3 * row['forward_s']:.1f} "
        f"| {1e3 * row['with_gradients_s']:.1f} | {row['gflops']:.0f} | {row['distance']:.1e} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
