"""`python -m modaltune_jax.zero_shot --config=configs/titan.py:brca ...`: ranks slides against words."""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import command, config_file
from modaltune_jax.types import InputError

_KEYS = ("templates", "classes")
_EXAMPLES = """\
prompts.toml has names for every class, and sentences to put each name into:

  templates = ["CLASSNAME.", "an H&E image of CLASSNAME."]
  [classes]
  "infiltrating duct carcinoma" = ["invasive ductal carcinoma", "breast invasive ductal carcinoma"]
  "lobular carcinoma" = ["invasive lobular carcinoma"]

Of the config count data, pipeline, slide encoder and its weights; any value can be set as in training
(--config.data.directory=FOLDER). Nothing is trained or fitted, and of the cases only slides are used.

  python -m modaltune_jax.convert --from titan-text hf:titan weights/titan_text --tokenizer tokenizer.json
  python -m modaltune_jax.zero_shot --config=configs/titan.py:brca --text=weights/titan_text \\
      --prompts=prompts.toml"""


def main(arguments: Sequence[str]) -> None:
    """Runs one ranking.

    Raises:
      InputError: whatever is wrong with flags, config, prompts, data or weights.
    """
    words, overrides = command.split_overrides(arguments)
    options = _parser().parse_args(words)
    out = Path(options.out).expanduser()
    if out.is_dir():
        raise InputError(f"--out={out} is a folder: give the name of a CSV file")
    if options.temperature is not None and not 0 < options.temperature < math.inf:
        raise InputError(
            f"--temperature={options.temperature} cannot divide similarities: give a positive number"
        )
    command.prepare_jax(-1)
    # A wrong path or file should not wait for jax.
    config_dict = config_file.load(options.config, overrides)
    prompts = read_prompts(Path(options.prompts).expanduser())
    from modaltune_jax import zero_shot_embed, zero_shot_table
    from modaltune_jax.config import unpack
    from modaltune_jax.inputs.prepare import prepare

    config = unpack(config_dict)
    sizes = zero_shot_embed.titan_of(config)
    records = prepare(config.data)
    rows, left_out = zero_shot_embed.cases_with_slides(records, options.split, sizes.in_dim)
    bank = zero_shot_embed.embed_classes(prompts, options.text, sizes.width)
    encoder = zero_shot_embed.load_titan(sizes, config.encoder_weights)
    if left_out:
        print(f"left out, as they have no slides: {', '.join(left_out)}")
    # Not after hours of embedding, should it fail.
    out.parent.mkdir(parents=True, exist_ok=True)
    embeddings = zero_shot_embed.embed_slides(encoder, records, rows, config)
    cases = records.table.iloc[rows]
    table = zero_shot_table.score_table(bank, embeddings, cases, options.temperature)
    zero_shot_table.write(table, out)
    print(f"{zero_shot_table.to_text(table, bank.names, cases, records.specs)}\n\nscores in {out}")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: no scores were written")


def read_prompts(path: Path) -> dict[str, tuple[str, ...]]:
    """Sentences by class, from a TOML file with `templates` and the names of `[classes]`.

    Raises:
      InputError: no such file, not TOML, an unknown or missing key, a value that is no list of texts, a class
        called as a column of the table is, or a template without a place for the name.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a TOML file of prompts, --help shows one")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    unknown, missing = sorted(set(values) - set(_KEYS)), [key for key in _KEYS if key not in values]
    if unknown or missing:
        raise InputError(
            f"{path}: unknown keys {unknown}, missing keys {missing}; write {' and '.join(_KEYS)}"
        )
    if not isinstance(values["classes"], dict):
        raise InputError(f"{path}: classes is {values['classes']!r}; write a table of lists, [classes]")
    for key, texts in [("templates", values["templates"]), *values["classes"].items()]:
        is_list = isinstance(texts, list) and texts
        if not is_list or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f"{path}: {key!r} is {texts!r}; write a list of at least one text, none empty")
    from modaltune_jax.class_bank import prompts_from_templates
    from modaltune_jax.zero_shot_table import CASE_COLUMNS

    taken = sorted(set(values["classes"]) & set(CASE_COLUMNS))
    if taken:
        raise InputError(f"{path}: class {taken[0]!r} is called as a column of the table: name it otherwise")
    try:
        return prompts_from_templates(values["classes"], values["templates"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.zero_shot",
        description="Ranks slides against words, with a slide encoder whose space has a text tower (TITAN).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:VARIANT]", help="experiment, a file of configs/"
    )
    parser.add_argument(
        "--text",
        required=True,
        metavar="FOLDER",
        help="the encoder's own text tower, as modaltune_jax.convert writes it, or a table of its vectors "
        "(.npz, .parquet)",
    )
    parser.add_argument("--prompts", required=True, metavar="FILE", help="TOML file, see below")
    parser.add_argument(
        "--split", choices=("test", "val", "train", "all"), default="test", help="default test"
    )
    parser.add_argument(
        "--out", default="scores.csv", metavar="FILE", help="CSV, one row a case; default scores.csv"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="write probabilities, the softmax of similarities divided by T; default the similarities",
    )
    return parser


if __name__ == "__main__":
    run()
