"""`python -m modaltune_jax.convert --from KIND SRC DST`: published weights in, and back `--to torch`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modaltune_jax import command
from modaltune_jax.convert.locate import HUB, PUBLIC, locate
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
_TEXT_TOWERS = {"conch": "CONCH", "titan-text": "TITAN"}
_WHOLE_MODELS = ("modaltune-gigapath", "modaltune-titan")
_FOLDERS = (*_TEXT_TOWERS, "bert")
"""Kinds that are written as folders."""
_TORCH = (".pth", ".pt", ".bin")
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
    _refuse_useless(options)
    kind = options.kind or ""
    if kind == "bert" and options.source.startswith(HUB):
        raise InputError("--from bert reads a folder: get it with `hf download <model> --local-dir <folder>`")
    # Before the imports that take a second, so that a mistyped path is told at once.
    source = locate(options.source, "titan" if kind == "titan-text" else kind, download=options.download)
    target = _target(options.target, source, options)
    command.prepare_jax(-1)
    start = time.perf_counter()
    report = _to_public(source, target, options) if options.to else _from_public(source, target, options)
    print(report)
    print(f"{'in':>6}  {time.perf_counter() - start:.1f} s")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: no file was left half-written")


def _to_public(source: Path, target: Path, options: argparse.Namespace) -> Any:
    encoder = locate(options.encoder, "", download=options.download) if options.encoder else None
    if encoder is not None and _is_same(target, encoder):
        raise InputError(f"{target} is the encoder that is read, and would be lost: name another to write")
    from modaltune_jax.convert.to_public import to_public

    return to_public(source, target, encoder)


def _from_public(source: Path, target: Path, options: argparse.Namespace) -> Any:
    kind = options.kind
    if kind in _TEXT_TOWERS:
        if not options.tokenizer:
            raise InputError(f"--from {kind} needs --tokenizer, the tokenizer.json of the model")
        tokenizer = locate(options.tokenizer, "tokenizer", download=options.download)
        from modaltune_jax.convert import conch

        return conch.convert(source, target, tokenizer=tokenizer, prefix=conch.PREFIXES[_TEXT_TOWERS[kind]])
    if kind == "bert":
        from modaltune_jax.convert import bert

        return bert.convert(source, target, pooling=options.pooling)
    from modaltune_jax.convert import from_public

    if kind in _WHOLE_MODELS:
        encoder = _target(options.write_encoder, source, options) if options.write_encoder else None
        if encoder is not None and _is_same(encoder, target):
            raise InputError(f"DST and --write-encoder are both {target}: give each a name of its own")
        return from_public.convert_modaltune(source, target, kind, encoder)
    return from_public.convert_encoder(source, target, kind, options.skip)


def _target(name: str, source: Path, options: argparse.Namespace) -> Path:
    """Where something may be written: never over what is read, and over nothing else unless asked."""
    target = Path(name).expanduser()
    if _is_same(target, source):
        raise InputError(f"{target} is what is read, and would be lost: name another to write")
    if target.exists() and not options.force:
        raise InputError(f"{target} exists: name another, or say --force to replace it")
    if options.kind in _FOLDERS:
        return target
    if name.endswith(os.sep) or (target.exists() and not target.is_file()):
        raise InputError(f"{name} is no file: give the name of the file to write, e.g. weights.safetensors")
    if not options.to and target.suffix in _TORCH:
        raise InputError(f"{target} gets no torch file: call it {target.with_suffix('.safetensors').name}")
    return target


def _is_same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve() or (first.exists() and first.samefile(second))


def _refuse_useless(options: argparse.Namespace) -> None:
    """A flag that would change nothing is a mistake."""
    used = {
        "tokenizer": tuple(_TEXT_TOWERS),
        "pooling": ("bert",),
        "encoder": ("torch",),
        "write_encoder": _WHOLE_MODELS,
        "skip": ("gigapath", "titan"),
    }
    direction = f"--to {options.to}" if options.to else f"--from {options.kind}"
    for flag, uses in used.items():
        if getattr(options, flag) and (options.to or options.kind) not in uses:
            raise InputError(f"--{flag.replace('_', '-')} has no meaning with {direction}: leave it out")


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
        help="--to torch: the slide encoder that the adapter is of",
    )
    parser.add_argument(
        "--write-encoder",
        metavar="FILE",
        help="--from modaltune-*: write the encoder in the checkpoint too (else only the adapter is)",
    )
    parser.add_argument(
        "--tokenizer", metavar="FILE", help="the text tower's tokenizer, a tokenizers JSON file, or hf:..."
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
    parser.add_argument("--force", action="store_true", help="replace what is to be written")
    return parser


if __name__ == "__main__":
    run()
