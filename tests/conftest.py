"""Shapes written in signatures are checked in every test."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from jaxtyping import install_import_hook

install_import_hook("modaltune_jax", "beartype.beartype")
