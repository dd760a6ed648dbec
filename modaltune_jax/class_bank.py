"""Classes as vectors of text: zero-shot classification by cosine similarity.

>>> prompts_from_templates({"luad": ["lung adenocarcinoma"]}, ["an image of CLASSNAME.", "CLASSNAME."])
{'luad': ('an image of lung adenocarcinoma.', 'lung adenocarcinoma.')}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from modaltune_jax.models.text.base import TextEncoder
from modaltune_jax.types import InputError

PLACEHOLDERS = ("CLASSNAME", "{}")
"""Where a template takes the name of a class: as CONCH's prompts are published, and as CLIP's are."""


@dataclasses.dataclass(frozen=True)
class ClassBank:
    """One direction of the text space a class.

    Attributes:
      names: of the classes.
      vectors: `[c, d]` float32, of norm 1.
    """

    names: tuple[str, ...]
    vectors: Float[np.ndarray, "c d"]

    def scores(self, embeddings: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Cosine similarity of every embedding to every class; 0 for an embedding of zeros.

        Args:
          embeddings: in the space of the text encoder, of any norm.

        Raises:
          InputError: they have another width than the classes, or are not finite.
        """
        if embeddings.shape[1] != self.vectors.shape[1]:
            raise InputError(
                f"embeddings of width {embeddings.shape[1]} cannot be compared with classes of width "
                f"{self.vectors.shape[1]}: use the text encoder that belongs to the embeddings"
            )
        finite = np.isfinite(embeddings).all(axis=1)
        if not finite.all():
            raise InputError(f"embedding {int(np.argmin(finite))} is not finite: leave that case out")
        return (_unit(embeddings) @ self.vectors.T).astype(np.float32)

    def rank(
        self, embeddings: Float[np.ndarray, "n d"], top: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """The classes of every embedding with their scores, best first; equal ones in the order of `names`.

        Args:
          embeddings: as for `scores`.
          top: how many classes of each; None for all.

        Raises:
          InputError: as for `scores`.
        """
        scores = self.scores(embeddings)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [
            [(self.names[c], float(row[c])) for c in best] for row, best in zip(scores, order, strict=True)
        ]


def class_bank(prompts: Mapping[str, Sequence[str]], encoder: TextEncoder) -> ClassBank:
    """Encodes the sentences about each class and averages them (Radford et al. 2021, sec. 3.1.4).

    The vectors of sentences are scaled to norm 1 before their mean is taken, and the mean is again.

    Args:
      prompts: sentences by class.
      encoder: frozen text encoder.

    Raises:
      InputError: no classes, a class without sentences, or one whose sentences cancel each other out.

    References:
      Radford et al., `CLIP <https://arxiv.org/abs/2103.00020>`_, 2021
    """
    _check_lists(prompts, "sentences")
    unique = sorted({sentence for sentences in prompts.values() for sentence in sentences})
    vectors = dict(zip(unique, _unit(encoder.encode(unique)), strict=True))
    means = np.stack(
        [np.mean([vectors[sentence] for sentence in group], axis=0) for group in prompts.values()]
    )
    for name, mean in zip(prompts, means, strict=True):
        # Rounding leaves 1e-7 of vectors that cancel.
        if not np.linalg.norm(mean) > 1e-6:
            raise InputError(f"the sentences of class {name!r} have no direction in common: write them anew")
    return ClassBank(tuple(prompts), _unit(means).astype(np.float32))


def prompts_from_templates(
    classes: Mapping[str, Sequence[str]], templates: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Sentences about each class: every template with every name of the class.

    Args:
      classes: names as a pathologist would write them, by class.
      templates: sentences with one of `PLACEHOLDERS`.

    Raises:
      InputError: no classes, a class without names, no templates, or one without placeholder.
    """
    _check_lists(classes, "names")
    if not templates or isinstance(templates, str):
        raise InputError(f"templates are {templates!r}: give a list of at least one sentence")
    for template in templates:
        if not any(placeholder in template for placeholder in PLACEHOLDERS):
            raise InputError(
                f"template {template!r} has no place for the class: write {' or '.join(PLACEHOLDERS)}"
            )
    return {
        name: tuple(_fill(template, words) for words in synonyms for template in templates)
        for name, synonyms in classes.items()
    }


def _check_lists(classes: Mapping[str, Sequence[str]], what: str) -> None:
    if not classes:
        raise InputError(f"there are no classes: give at least one with its {what}")
    for name, texts in classes.items():
        if not texts or isinstance(texts, str):
            raise InputError(f"the {what} of class {name!r} are {texts!r}: give a list of at least one")


def _fill(template: str, name: str) -> str:
    for placeholder in PLACEHOLDERS:
        template = template.replace(placeholder, name)
    return template


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of norm 1 in float64; a row of zeros stays."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
