"""`python -m modaltune_jax.convert --from KIND SRC DST`: published weights in, and back `--to torch`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modaltune_jax import command
from modaltune_jax.convert.locate import PUBLIC, locate
from modaltune_jax.types import InputError

_KINDS = {
    "gigapath": "Prov-GigaPath's slide encoder (slide_encoder.pth)",
    "titan": "TITAN's slide encoder (model.safetensors)",
    "modaltune-gigapath": "a ModalTune checkpoint on Prov-GigaPath (best_model_weights.pt)",
    "modaltune-titan": "a ModalTune checkpoint on TITAN",
    "conch": "CONCH's text tower (pytorch_model.bin); DST is a folder, --tokenizer is needed",
    "titan-text": "TITAN's text tower (model.safetensors); as conch",
    "bert": "a BERT-family sentence encoder; SRC is its Hugging Face folder, DST a folder",
}
_EXAMPLES = """\
kinds of --from:
{kinds}

SRC is a path, or a file in the local Hugging Face cache: hf:owner/repository/file, or short {short}.
Files are read without torch, and nothing in them is run. Every tensor must have its one place.

  python -m modaltune_jax.convert --from gigapath hf:gigapath weights/gigapath.safetensors
  python -m modaltune_jax.convert --from conch hf:conch weights/conch --tokenizer tokenizer.json
  python -m modaltune_jax.convert --to torch runs/brca/full/seed0 adapter.pt --encoder hf:gigapath"""


def main(arguments: Sequence[str]) -> None:
    """Runs one conversion.

    Raises:
      InputError: whatever is wrong with flags or files.
    """
    options = _parser().parse_args(arguments)
    target = Path(options.target).expanduser()
    if target.exists() and not options.force:
        raise InputError(f"{target} exists: name another, or say --force to replace it")
    start = time.perf_counter()
    report = _to_public(options, target) if options.to else _from_public(options, target)
    print(report)
    print(f"{'in':>6}  {time.perf_counter() - start:.1f} s")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: nothing was written")


def _to_public(options: argparse.Namespace, target: Path) -> Any:
    from modaltune_jax.convert.to_public import to_public

    encoder = locate(options.encoder, "", download=options.download) if options.encoder else None
    return to_public(Path(options.source).expanduser(), target, encoder)


def _from_public(options: argparse.Namespace, target: Path) -> Any:
    from modaltune_jax.convert import bert, conch, from_public

    kind = options.kind
    _refuse_useless(options)
    source = locate(options.source, "titan" if kind == "titan-text" else kind, download=options.download)
    if kind in ("conch", "titan-text"):
        if not options.tokenizer:
            raise InputError(f"--from {kind} needs --tokenizer, the tokenizer.json of the model")
        prefix = "text." if kind == "conch" else "text_encoder."
        return conch.convert(source, target, tokenizer=Path(options.tokenizer).expanduser(), prefix=prefix)
    if kind == "bert":
        return bert.convert(source, target, pooling=options.pooling)
    if kind.startswith(from_public.WHOLE_MODEL):
        encoder = Path(options.encoder).expanduser() if options.encoder else None
        return from_public.convert_modaltune(source, target, kind, encoder)
    return from_public.convert_encoder(source, target, kind, options.skip)


def _refuse_useless(options: argparse.Namespace) -> None:
    """A flag that would change nothing is a mistake."""
    used = {
        "tokenizer": ("conch", "titan-text"),
        "pooling": ("bert",),
        "encoder": ("modaltune-gigapath", "modaltune-titan"),
        "skip": ("gigapath", "titan"),
    }
    for flag, kinds in used.items():
        if getattr(options, flag) and options.kind not in kinds:
            raise InputError(f"--{flag} has no meaning with --from {options.kind}: leave it out")


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {kind:<20} {what}" for kind, what in _KINDS.items())
    parser = command.Parser(
        prog="python -m modaltune_jax.convert",
        description="Converts published weights for this package, or weights of this package for torch.",
        epilog=_EXAMPLES.format(kinds=kinds, short=", ".join(f"hf:{name}" for name in PUBLIC)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument(
        "--from", dest="kind", choices=_KINDS, metavar="KIND", help="what SRC is, see below"
    )
    direction.add_argument(
        "--to", choices=("torch",), help="SRC is a converted file or a run's folder; DST gets public names"
    )
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument(
        "--encoder",
        metavar="FILE",
        help="--to torch: the slide encoder that the adapter is of; --from modaltune-*: where the encoder "
        "in the checkpoint is written (else only the adapter is)",
    )
    parser.add_argument(
        "--tokenizer", metavar="FILE", help="the text tower's tokenizer, a tokenizers JSON file"
    )
    parser.add_argument("--pooling", metavar="NAME", help="of token vectors; default what the folder says")
    parser.add_argument(
        "--skip",
        metavar="TEMPLATE",
        action="append",
        default=[],
        help="leave out tensors of these names, e.g. 'decoder.{any}'; may be repeated",
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch SRC from Hugging Face if it is not here"
    )
    parser.add_argument("--force", action="store_true", help="replace DST")
    return parser


if __name__ == "__main__":
    run()
