"""A way in which labels or test cases reach what they must not."""

from __future__ import annotations

from typing import NamedTuple


class Leak(NamedTuple):
    """A leak that was found.

    Attributes:
      kind: a stable word for it, "slide-in-two-splits".
      severity: "error", results would be wrong, or "warning".
      message: sentences: what it means and what to do.
      examples: up to five of the identifiers concerned.
    """

    kind: str
    severity: str
    message: str
    examples: tuple[str, ...] = ()
