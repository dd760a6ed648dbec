"""Names and numbers as reports and pictures say them."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "slide"), plural(1200, "slide")
    ('1 slide', '1,200 slides')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortened(name: str, width: int) -> str:
    """A long name without its middle: barcodes differ at both ends.

    >>> shortened("TCGA-AA-0001-01Z-00-DX1", 14), shortened("lung", 14)
    ('TCGA-AA-..-DX1', 'lung')
    """
    end = min(7, width // 3)
    return name if len(name) <= width else f"{name[: width - end - 2]}..{name[-end:]}"
