"""Which columns of a table hold what: known for published tables, a TOML file for one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modaltune_jax.inputs.clinical import DEFAULT_COLUMNS
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.text_file import read_toml
from modaltune_jax.types import InputError

COLUMN_KEYS = ("case_id", "slide_id", "diagnosis", "stage", "t", "n", "m", "age", "project", "split")
"""What a column may hold, besides survival and further variables."""

_ENDPOINT_KEYS = ("time", "unit", "event", "censorship", "event_values", "censorship_values")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of a table.

    Attributes:
      of: what it is (one of `COLUMN_KEYS`) -> column.
      endpoint: survival; None if the table has none, or none was chosen.
      variables: name -> column of further variables.
    """

    of: Mapping[str, str]
    endpoint: Endpoint | None = None
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def merged(self, other: Columns) -> Columns:
        """These columns, with what `other` names in their place."""
        endpoint = other.endpoint or self.endpoint
        return Columns({**self.of, **other.of}, endpoint, {**self.variables, **other.variables})


def read_columns(path: Path) -> Columns:
    """Reads a columns file::

        case_id = "Patient ID"
        diagnosis = "Histology"
        age = "Age (years)"

        [endpoint]
        time = "Follow-up"
        unit = "months"
        event = "Status"
        event_values = { "died" = 1, "alive" = 0, "lost" = -1 }

        [variables]
        sex = "Sex"

    Raises:
      InputError: the file is missing, is not TOML, or has an unknown key or a value of the wrong type.
    """
    fields = read_toml(path, "give a TOML file that names the columns of your table")
    endpoint = _endpoint(fields.pop("endpoint", None), path)
    variables = fields.pop("variables", {})
    if not isinstance(variables, dict):
        raise InputError(f"{path}: variables is {variables!r}; write a table, [variables], of name = column")
    unknown = sorted(set(fields) - set(COLUMN_KEYS))
    if unknown:
        raise InputError(
            f"{path}: unknown key {unknown[0]!r}; known are {', '.join(COLUMN_KEYS)}, [endpoint] and"
            " [variables]"
        )
    _check_text({**fields, **variables}, path)
    check_variables(variables, str(path))
    return Columns(_in_one_line(fields), endpoint, _in_one_line(variables))


def check_variables(names: Iterable[str], source: str) -> None:
    """Refuses variables that could not be told from what every cohort has.

    Raises:
      InputError: a name is that of a label.
    """
    for name in names:
        if name in DEFAULT_COLUMNS:
            raise InputError(
                f"{source}: variable {name!r} has the name of a label, which hides it; write {name} ="
                " COLUMN above the tables if it is that, or give it another name in [variables]"
            )


def _endpoint(fields: Any, path: Path) -> Endpoint | None:
    if fields is None:
        return None
    if not isinstance(fields, dict) or set(fields) - set(_ENDPOINT_KEYS):
        raise InputError(
            f"{path}: endpoint is {fields!r}; write a table, [endpoint], of {', '.join(_ENDPOINT_KEYS)}"
        )
    columns = {key: value for key, value in fields.items() if not key.endswith("_values")}
    _check_text(columns, path)
    columns = {key: text if key == "unit" else " ".join(text.split()) for key, text in columns.items()}
    called = "event" if "event" in columns else "censorship"
    values = fields.get(f"{called}_values", {})
    other = "censorship_values" if called == "event" else "event_values"
    if other in fields or not isinstance(values, dict):
        raise InputError(
            f"{path}: endpoint: beside {called} write {called}_values, a table of word = 0, 1 or -1"
        )
    try:
        return Endpoint(
            time=columns.get("time", ""),
            unit=columns.get("unit", ""),
            event=columns.get("event", ""),
            censorship=columns.get("censorship", ""),
            values=values,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _in_one_line(columns: Mapping[str, str]) -> dict[str, str]:
    """Column names as headers are read: a line break counts as a space."""
    return {key: " ".join(column.split()) for key, column in columns.items()}


def _check_text(fields: Mapping[str, Any], path: Path) -> None:
    for key, value in fields.items():
        if not isinstance(value, str) or not value:
            raise InputError(f"{path}: {key} is {value!r}; write the name of a column in quotes")
