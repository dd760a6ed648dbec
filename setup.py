"""Where packages lie: the folders that users edit are at the top here, and inside the package in a wheel."""

from setuptools import find_packages, setup

SHIPPED = {"modaltune_jax._shipped.configs": "configs", "modaltune_jax._shipped.data": "data"}

setup(
    packages=[*find_packages(include=["modaltune_jax", "modaltune_jax.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={"modaltune_jax._shipped.data": ["*.toml", "*.md"]},
)
