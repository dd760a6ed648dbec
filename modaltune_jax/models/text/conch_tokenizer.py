"""The tokenizer that CONCH and TITAN publish with their text towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from modaltune_jax.models.text.conch import ConchTextConfig
from modaltune_jax.models.text.tokenizer import make_tokenizer
from modaltune_jax.types import InputError

START, END, PAD = "<start_of_text>", "<end_of_text>", "<pad>"


class ConchTokenizer:
    """Sentences to token ids between a start and an end.

    Attributes:
      pad_id: id that stands behind sentences.
    """

    def __init__(self, text: str, path: Path):
        """Reads the JSON text of a tokenizer.

        Args:
          text: the JSON.
          path: where it comes from, for errors.

        Raises:
          InputError: no tokenizer, or one that does not put its sentences between start and end.
        """
        self._tokenizer = make_tokenizer(text, path)
        self._path = path
        start, end, self.pad_id = (self._tokenizer.token_to_id(token) for token in (START, END, PAD))
        if None in (start, end, self.pad_id) or self._tokenizer.encode("").ids != [start, end]:
            raise InputError(
                f"{path} does not write sentences as {START} ... {END} or does not know {PAD}: give the "
                "tokenizer that is published with the text tower (conch_byte_level_bpe_uncased.json)"
            )

    def check(self, config: ConchTextConfig) -> None:
        """Makes sure that the tokenizer belongs to a model of these sizes.

        Raises:
          InputError: it does not.
        """
        size = self._tokenizer.get_vocab_size()
        if size > config.vocab_size or self.pad_id != config.pad_id:
            raise InputError(
                f"{self._path} has {size} tokens and {PAD} = {self.pad_id}, the text tower has "
                f"{config.vocab_size} and {config.pad_id}: give the tokenizer that is published with it"
            )

    def encode(self, sentences: Sequence[str], max_ids: int) -> list[list[int]]:
        """Ids of sentences. Those of more than `max_ids` lose what is before their end, as published."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(sentences))]
        num_cut = sum(len(ids) > max_ids for ids in tokens)
        if num_cut:
            logging.warning(
                "%d of %d sentences have more than %d tokens; the text encoder reads their beginnings only",
                num_cut,
                len(tokens),
                max_ids,
            )
        return [ids if len(ids) <= max_ids else ids[: max_ids - 1] + ids[-1:] for ids in tokens]
