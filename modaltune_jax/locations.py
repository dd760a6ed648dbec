"""Where the folders that users edit lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The `configs` or `data` folder that came with this copy of the package."""
    beside = _PACKAGE.parent / folder
    # A site-packages folder may hold somebody else's "data": only a checkout has our pyproject.
    if (_PACKAGE.parent / "pyproject.toml").is_file() and beside.is_dir():
        return beside
    return _PACKAGE / "_shipped" / folder
