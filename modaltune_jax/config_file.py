"""Config files and what a command line changes in them: `configs/pancancer.py:demo`, `optim.epochs=20`."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from modaltune_jax.locations import shipped
from modaltune_jax.types import InputError


def load(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Calls the `get_config` of a config file and sets values in what it returns.

    Keys and types are checked where the config is unpacked (`config.unpack`), not here.

    Args:
      name: path of the file, which may be that of a shipped config; `:argument` behind it is passed on to
        `get_config`.
      overrides: `"optim.epochs=20"`. A value is text where the config holds text, else a Python literal; a
        tuple may be written as `0,1` or `brca,rcc`, or as its only entry.

    Raises:
      InputError: no such file, an error in it, or an override without key or value.
    """
    file, colon, argument = name.partition(":")
    path = _locate(file)
    try:
        config = _import(path).get_config(*([argument] if colon else []))
    except Exception as error:  # the file is the user's program: whatever goes wrong in it is wrong input
        raise InputError(f"config {path}{_fault(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"config {path}: get_config() gives {type(config).__name__}, it must be a ConfigDict"
        )
    for override in overrides:
        _override(config, override)
    return config


def names() -> list[str]:
    """File names of the configs that came with the package."""
    return sorted(file.name for file in shipped("configs").glob("*.py") if file.name != "common.py")


def _locate(file: str) -> Path:
    path = Path(file).expanduser()
    if path.is_file():
        return path
    # Only "configs/brca.py" and "brca.py" may mean a shipped file: another folder is a folder of the user's.
    known = shipped("configs") / path.name
    if path.parts in ((path.name,), ("configs", path.name)) and known.is_file():
        return known
    raise InputError(f"config file {file!r} does not exist; shipped with the package: {', '.join(names())}")


def _import(path: Path) -> ModuleType:
    root = str(shipped("configs").parent)
    if root not in sys.path:
        # Configs import each other as `configs.common`.
        sys.path.append(root)
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("the name of a config file ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fault(error: Exception, path: Path) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):
        # What configs raise themselves: a sentence.
        return f": {text}"
    lines = [error.lineno] if isinstance(error, SyntaxError) else []
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path.absolute():
            lines.append(frame.lineno)
    return f"{f', line {lines[-1]}' if lines else ''}: {type(error).__name__}: {text}"


def _override(config: ConfigDict, override: str) -> None:
    path, equals, text = override.partition("=")
    if not path or not equals:
        raise InputError(f"--config.{path} has no value; write --config.{path or 'KEY'}=VALUE")
    *groups, key = path.split(".")
    group = config
    # Unknown keys are made here and refused with a hint when the config is unpacked.
    with config.unlocked(), config.ignore_type():
        for i, name in enumerate(groups):
            if name not in group:
                group[name] = ConfigDict()
            group = group[name]
            if not isinstance(group, ConfigDict):
                raise InputError(
                    f"config key config.{'.'.join(groups[: i + 1])} is a value without keys in it"
                )
        group[key] = _parse(text, group.get(key))


def _parse(text: str, before: object) -> object:
    """The value that `text` means in the place of `before`."""
    if isinstance(before, str):
        return text
    value = _literal(text)
    if isinstance(before, tuple | list) and not isinstance(value, tuple | list):
        return tuple(_literal(part) for part in text.split(",")) if isinstance(value, str) else (value,)
    return value


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)
