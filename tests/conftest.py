"""Shapes written in signatures are checked in every test; compilations are cheap."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and compute little. XLA_FLAGS=" " in the environment tests what users run instead.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

from jaxtyping import install_import_hook

install_import_hook("modaltune_jax", "beartype.beartype")
