"""Draws docs/data_flow.svg, the figure of the README.

    python -m docs.draw_data_flow

Plain SVG text on a card of its own, so that it reads the same on light and dark pages. Colours are Okabe and
Ito's; what is frozen has a dashed border besides.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

FIGURE = Path(__file__).with_name("data_flow.svg")
WIDTH, HEIGHT = 1000, 662

# Fill, border, dashes.
DATA = ("#f3f4f6", "#6b7280", "")
FROZEN = ("#dcecf8", "#0072b2", "6 4")
TRAINED = ("#fdebc8", "#b36b00", "")

COLUMNS = (36, 278, 520, 762)
"""Left edges of the boxes above and below the model."""
BOX_WIDTH, BOX_HEIGHT = 208, 64

STAGES = (220, 368, 516)
"""Left edges of the encoder's and the adapter's stages."""
STAGE_WIDTH = 120
ENCODER_ROW, ADAPTER_ROW = 306, 424


def box(x: float, y: float, width: float, height: float, kind: tuple[str, str, str], *lines: str) -> str:
    """A rounded box with centred lines of text, the first one bold."""
    fill, border, dashes = kind
    first = y + height / 2 - 11 * (len(lines) - 1) + 5.5
    texts = [
        text(x + width / 2, first + 22 * i, line, "title" if i == 0 else "") for i, line in enumerate(lines)
    ]
    shape = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{fill}" '
        f'stroke="{border}" stroke-width="2" stroke-dasharray="{dashes or "none"}"/>'
    )
    return "\n".join([shape, *texts])


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(path: str) -> str:
    """A line along an SVG path, with a head at its end."""
    return f'<path d="{path}" class="arrow" marker-end="url(#head)"/>'


def preparation() -> list[str]:
    """Once: cohort to records, labels to targets."""
    top, bottom = 52, 150
    centre = [x + BOX_WIDTH / 2 for x in COLUMNS]
    return [
        text(36, 36, "Once, before training", "heading", "start"),
        box(
            COLUMNS[0],
            top,
            BOX_WIDTH,
            bottom - top + BOX_HEIGHT,
            DATA,
            "a cohort",
            "tile features",
            "RNA expression",
            "clinical table, splits",
            "data/<cohort>.toml",
        ),
        box(COLUMNS[1], top, BOX_WIDTH, BOX_HEIGHT, DATA, "sentences", "one a task, from labels"),
        box(COLUMNS[2], top, BOX_WIDTH, BOX_HEIGHT, FROZEN, "text encoder", "then a random projector"),
        box(COLUMNS[3], top, BOX_WIDTH, BOX_HEIGHT, DATA, "targets", "[case, task, 256]"),
        box(COLUMNS[1], bottom, BOX_WIDTH, BOX_HEIGHT, DATA, "checked cases", "splits, widths, NaN"),
        box(COLUMNS[2], bottom, BOX_WIDTH, BOX_HEIGHT, DATA, "records", "ArrayRecord and index"),
        *(arrow(f"M{COLUMNS[i] + BOX_WIDTH} {top + BOX_HEIGHT / 2}H{COLUMNS[i + 1] - 4}") for i in range(3)),
        *(
            arrow(f"M{COLUMNS[i] + BOX_WIDTH} {bottom + BOX_HEIGHT / 2}H{COLUMNS[i + 1] - 4}")
            for i in range(2)
        ),
        # From the records to both inputs of the model, and from the targets to the loss.
        arrow(f"M{centre[2]} {bottom + BOX_HEIGHT}V246H108V{ENCODER_ROW - 4}"),
        arrow(f"M108 246H18V{ADAPTER_ROW + 32}H32"),
        arrow(f"M{centre[3]} {top + BOX_HEIGHT}V{ENCODER_ROW - 4}"),
        text(centre[1], 240, "batches: few padded lengths", "note"),
    ]


def model() -> list[str]:
    """Every step: two rows of stages, fusion, embedding, loss."""
    encoder, adapter = ENCODER_ROW + BOX_HEIGHT / 2, ADAPTER_ROW + BOX_HEIGHT / 2
    fusion, end = 668, COLUMNS[3]
    parts = [
        text(120, 286, "Every step", "heading", "start"),
        box(36, ENCODER_ROW, 154, BOX_HEIGHT, DATA, "tiles", "of all slides"),
        box(36, ADAPTER_ROW, 154, BOX_HEIGHT, TRAINED, "modal tokens", "task, RNA, clinical"),
        box(fusion, ENCODER_ROW, 62, ADAPTER_ROW - ENCODER_ROW + BOX_HEIGHT, TRAINED, "fuse"),
        box(end, ENCODER_ROW, BOX_WIDTH, BOX_HEIGHT, DATA, "loss", "KL to targets, AdamW"),
        box(end, ADAPTER_ROW, BOX_WIDTH, BOX_HEIGHT, DATA, "embeddings", "[case, task, 256]"),
        arrow(f"M{fusion + 62} {adapter}H{end - 4}"),
        arrow(f"M{end + BOX_WIDTH / 2} {ADAPTER_ROW}V{ENCODER_ROW + BOX_HEIGHT + 4}"),
    ]
    starts = (190, *(x + STAGE_WIDTH for x in STAGES))
    for y in (encoder, adapter):
        ends = (*STAGES, fusion)
        parts += [arrow(f"M{start} {y}H{stop - 4}") for start, stop in zip(starts, ends, strict=True)]
    for i, x in enumerate(STAGES):
        middle, gap = x + STAGE_WIDTH / 2, (ENCODER_ROW + BOX_HEIGHT, ADAPTER_ROW)
        parts += [
            box(
                x, ENCODER_ROW, STAGE_WIDTH, BOX_HEIGHT, FROZEN, "encoder", f"blocks {4 * i + 1}-{4 * i + 4}"
            ),
            box(x, ADAPTER_ROW, STAGE_WIDTH, BOX_HEIGHT, TRAINED, "adapter", f"stage {i + 1}"),
            arrow(f"M{middle - 10} {gap[1]}V{gap[0] + 4}"),
            arrow(f"M{middle + 10} {gap[0]}V{gap[1] - 4}"),
            text(middle - 17, sum(gap) / 2 + 5, "inject", "note", "end"),
            text(middle + 17, sum(gap) / 2 + 5, "extract", "note", "start"),
        ]
    return parts


def probing() -> list[str]:
    """Every few epochs and at the end: what the embeddings are good for."""
    y = 552
    labels = (
        ("embed every case", "train, val, test"),
        ("probes on train", "logistic, ridge Cox"),
        ("metrics per site", "balanced accuracy, c"),
        ("results", "best checkpoint, tables"),
    )
    return [
        text(36, y - 16, "Every few epochs, and at the end", "heading", "start"),
        *(box(x, y, BOX_WIDTH, BOX_HEIGHT, DATA, *lines) for x, lines in zip(COLUMNS, labels, strict=True)),
        *(arrow(f"M{COLUMNS[i] + BOX_WIDTH} {y + BOX_HEIGHT / 2}H{COLUMNS[i + 1] - 4}") for i in range(3)),
    ]


def legend() -> list[str]:
    """Kinds of boxes, below everything."""
    parts = []
    for x, kind, words in ((36, DATA, "data"), (128, FROZEN, "frozen"), (236, TRAINED, "trained")):
        parts += [box(x, 634, 26, 16, kind), text(x + 34, 648, words, "note", "start")]
    return parts


def figure() -> str:
    """The whole SVG."""
    style = (
        'text { font: 16px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif;'
        " fill: #1f2937 } .title, .heading { font-weight: 600 } .heading { font-size: 18px }"
        " .note { font-size: 15px } .arrow { fill: none; stroke: #374151; stroke-width: 2 }"
    )
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="5" markerHeight="5" '
        'orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#374151"/></marker>'
    )
    description = (
        "Data flow. Once: a cohort becomes checked records and text targets. Every step: a frozen slide "
        "encoder and the trained adapter exchange tokens in three stages; fused embeddings are pulled to the "
        "targets. Every few epochs: probes on the embeddings of all cases give metrics per site."
    )
    card = (
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="10" fill="#fff" stroke="#9ca3af"/>'
    )
    parts = [*preparation(), *model(), *probing(), *legend()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{description}</title>",
            f"<style>{style}</style>",
            f"<defs>{head}</defs>",
            card,
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    FIGURE.write_text(figure(), encoding="utf-8")
