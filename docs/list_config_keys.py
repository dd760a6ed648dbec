"""Writes the tables of docs/configs.md from the dataclasses that a config is unpacked into.

    python -m docs.list_config_keys

Keys and meanings come from the dataclasses and their docstrings, defaults from configs/common.py. Text
outside the markers of docs/configs.md is written by hand.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs import common
from modaltune_jax.config import ENCODERS, Config
from modaltune_jax.models.baselines import BASELINES
from modaltune_jax.models.baselines.baseline import BaselineModelConfig
from modaltune_jax.models.modaltune import ModelConfig

PAGE = Path(__file__).with_name("configs.md")
START, END = "<!-- keys -->", "<!-- /keys -->"
BAR = r"\|"
"""How Markdown wants a bar within a table."""

_ENTRY = re.compile(r"  (\w+(?:, \w+)*): (.*)")


def meanings(kind: type) -> dict[str, str]:
    """What the "Attributes:" section of a dataclass says about each field."""
    lines = inspect.cleandoc(kind.__doc__ or "").splitlines()
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines[lines.index("Attributes:") + 1 :] if "Attributes:" in lines else []:
        entry = _ENTRY.fullmatch(line)
        if entry:
            names = entry[1].split(", ")
            found.update(dict.fromkeys(names, entry[2]))
        elif line.startswith("    "):
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        else:
            break
    return found


def tables() -> str:
    """All keys as Markdown, a table a group."""
    return "\n".join(_group("", Config, common.get_config().to_dict()))


def _group(path: str, kind: type, defaults: dict[str, Any], title: str = "") -> Iterator[str]:
    if path:
        yield from ("", f"## {title or path}", "", _summary(kind))
    hints, described = typing.get_type_hints(kind), meanings(kind)
    leaves = [name for name, hint in hints.items() if not _is_group(hint)]
    if leaves:
        yield from ("", "| key | default | meaning |", "|---|---|---|")
    if title and "name" not in hints:
        yield _row(f"{path}.name", defaults, "takes the settings of this table.")
    for name in leaves:
        yield _row(f"{path}.{name}" if path else name, defaults, described[name])
    for name, hint in hints.items():
        below = f"{path}.{name}" if path else name
        if isinstance(hint, types.UnionType):
            is_model = ModelConfig in typing.get_args(hint)
            yield from (_models if is_model else _encoders)(below, defaults.get(name, {}))
        elif _is_group(hint):
            yield from _group(below, hint, defaults[name])


def _encoders(path: str, defaults: dict[str, Any]) -> Iterator[str]:
    """A table for each: only the default one has defaults."""
    for name, kind in ENCODERS.items():
        yield from _group(
            path, kind, defaults if name == defaults.get("name") else {"name": name}, f"{path}, {name}"
        )


def _models(path: str, defaults: dict[str, Any]) -> Iterator[str]:
    """ModalTune's tables, then those of the baselines; encoders have tables already."""
    yield from _group(path, ModelConfig, defaults)
    yield from _group(path, BaselineModelConfig, {}, f"{path}, a baseline")
    for name, (kind, _) in BASELINES.items():
        described = meanings(kind)
        yield from ("", f"## {path}.sizes, {name}", "", _summary(kind))
        if described:
            yield from ("", "| key | default | meaning |", "|---|---|---|")
        for key, meaning in described.items():
            yield _row(f"{path}.sizes.{key}", {}, meaning)


def _summary(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def _is_group(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or dataclasses.is_dataclass(hint)


def _row(key: str, defaults: dict[str, Any], meaning: str) -> str:
    name = key.rpartition(".")[2]
    cells = (f"`{key}`", f"`{defaults[name]!r}`" if name in defaults else "", meaning)
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def page() -> str:
    """docs/configs.md as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
