"""Inspections for machines: stable keys, nothing left out, and null where there is no number."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.inspection.inspection import Inspection
from modaltune_jax.inspection.slide_checks import SlideCheck

FORMAT = 1
"""Raised whenever a key goes or changes its meaning; keys may be added."""


def to_json(inspections: Sequence[Inspection]) -> str:
    """One object: format, exit_code, and the inspections with the fields of their classes."""
    exit_code = max((inspection.verdict.exit_code for inspection in inspections), default=2)
    content = {
        "format": FORMAT,
        "exit_code": exit_code,
        "inspections": [
            {
                "verdict": {**_plain(inspection.verdict), "sentence": str(inspection.verdict)},
                **_plain(inspection),
            }
            for inspection in inspections
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False)


def write_json(path: Path, inspections: Sequence[Inspection]) -> None:
    """Writes `to_json`, whole or not at all."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        temporary.write_text(to_json(inspections) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Built-in types only: named tuples become objects, as dataclasses do."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"verdict": value.verdict, **fields} if isinstance(value, SlideCheck) else fields
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
