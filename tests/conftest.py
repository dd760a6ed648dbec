"""Shapes written in signatures are checked in every test; compilations are cheap."""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and compute little. With --xla_backend_optimization_level=3 they test what users run.
_FLAGS = ["--xla_backend_optimization_level=0"]
# Half of a compilation is its loops' way through MLIR, which JAX 0.10 can go without; later ones are faster.
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
# Tests build the same small models again and again. A cache a worker: entries are not written atomically.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "xla" / _WORKER)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

from jaxtyping import install_import_hook  # noqa: E402  (jax reads the environment when imported)

install_import_hook("modaltune_jax", "beartype.beartype")
