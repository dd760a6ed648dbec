"""Tokenizers of text encoders, through the `tokenizers` library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from modaltune_jax.types import InputError

# Parallel tokenizers would warn when data workers fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def read_tokenizer(path: Path) -> str:
    """The JSON text of a tokenizer file, checked to be one.

    Raises:
      InputError: no such file, or no tokenizer.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: give the model's tokenizer, a JSON file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no tokenizer, which is a JSON file ({error})") from error
    make_tokenizer(text, path)
    return text


def read_hugging_face_tokenizer(folder: Path) -> str:
    """The tokenizer of a Hugging Face model folder as the JSON text of one file.

    Raises:
      InputError: the folder has none, or none that the `tokenizers` library can run.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise InputError(
            f"{folder} has neither tokenizer.json nor vocab.txt: copy the model's tokenizer there"
        )
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its import warns that torch is absent
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # every class of tokenizers raises what it likes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the tokenizer in {folder} cannot be read ({reason}): copy it again") from error
    if not tokenizer.is_fast:
        raise InputError(
            f"{folder} has a {type(tokenizer).__name__}, which cannot be written as tokenizer.json: choose a "
            "model with a fast tokenizer"
        )
    return tokenizer.backend_tokenizer.to_str()


def check_vocabulary(tokenizer: Any, vocab_size: int, path: Path) -> None:
    """Makes sure that a model has a vector for every token of a text; jax would take the last one instead.

    Special tokens count where sentences have them: libraries add others, such as [MASK], that no model knows.

    Args:
      tokenizer: a `tokenizers.Tokenizer`.
      vocab_size: tokens of the model, which may be more.
      path: where the tokenizer comes from, for the error.

    Raises:
      InputError: it has more tokens than the model.
    """
    added = tokenizer.get_added_tokens_decoder()
    ids = [*tokenizer.get_vocab(with_added_tokens=False).values(), *tokenizer.encode("").ids]
    ids += [number for number, token in added.items() if not token.special]
    size = max(ids, default=-1) + 1
    if size > vocab_size:
        raise InputError(
            f"{path} has a tokenizer of {size} tokens for a text encoder of {vocab_size}: give the tokenizer "
            "that is published with it"
        )


def make_tokenizer(text: str, path: Path) -> Any:
    """A `tokenizers.Tokenizer` that neither pads nor truncates, whatever its file says.

    Args:
      text: its JSON.
      path: where it comes from, for the error.

    Raises:
      InputError: the text describes no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"{path} is no tokenizer of the tokenizers library: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
