"""Where weights lie: a plain path, or a file of a repository in the local Hugging Face cache."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from modaltune_jax.types import InputError

HUB = "hf:"
"""In front of a name, says that it is a file of a Hugging Face repository rather than a path."""

_HUB_NAME = re.compile(r"(?P<repo>[^/]+/[^/]+)/(?P<file>.+)")


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A published weight file.

    Attributes:
      repo: Hugging Face repository, "owner/name".
      file: path inside it.
      is_gated: whether its owners want terms to be accepted first.
    """

    repo: str
    file: str
    is_gated: bool

    def steps(self, revision: str | None = None) -> str:
        """What a user has to type to have the file, at a revision if one is named."""
        flag, suffix = (f" --revision {revision}", f"@{revision}") if revision else ("", "")
        steps = [
            f"`hf download {self.repo} {self.file}{flag}`",
            f"give it as {HUB}{self.repo}/{self.file}{suffix}",
        ]
        if self.is_gated:
            page = f"https://huggingface.co/{self.repo}"
            steps = [f"open {page}, ask for access and wait for it", "`hf auth login`", *steps]
        return ", ".join(f"({i}) {step}" for i, step in enumerate(steps, 1))


PUBLIC = {
    "gigapath": PublicFile("prov-gigapath/prov-gigapath", "slide_encoder.pth", is_gated=True),
    "titan": PublicFile("MahmoodLab/TITAN", "model.safetensors", is_gated=True),
    "conch": PublicFile("MahmoodLab/conch", "pytorch_model.bin", is_gated=True),
}
"""By kind; "hf:gigapath" is short for the whole name."""


def locate(name: str | Path, kind: str, *, download: bool = False) -> Path:
    """The weight file that a name means.

    Args:
      name: a path, "hf:owner/repository/file", or "hf:" and a key of `PUBLIC`; either of the latter may have
        "@revision" behind it.
      kind: what is looked for, a key of `PUBLIC` where there is one: its steps are part of the error.
      download: fetch a file of a repository that is not in the cache. Never done unless asked.

    Raises:
      InputError: there is no such file, with the steps to get it.
    """
    text = os.fspath(name)
    if text.startswith(HUB):
        return _in_hub(text, download=download)
    path = Path(text).expanduser()
    if path.exists():
        return path
    where = f"; to get the published {kind} weights: {PUBLIC[kind].steps()}" if kind in PUBLIC else ""
    raise InputError(f"{text!r} does not exist: give a path that does{where}")


def _in_hub(name: str, *, download: bool) -> Path:
    public, revision = _parse(name)
    import huggingface_hub as hub

    steps = public.steps(revision)
    try:
        cached = hub.try_to_load_from_cache(public.repo, public.file, revision=revision)
    except ValueError as error:
        raise InputError(f"{name!r} names no file of a repository ({error})") from error
    if isinstance(cached, str):
        return Path(cached)
    if not download:
        cache = Path(hub.constants.HF_HUB_CACHE)
        others = [] if revision else _cached_revisions(cache, public)
        if others:
            raise InputError(
                f"{name} is in the Hugging Face cache {cache} only at {', '.join(others)}, and none is main: "
                f"say which you mean, e.g. {name}@{others[0]}"
            )
        raise InputError(
            f"{name} is not in the Hugging Face cache {cache}, and nothing is downloaded unless asked for; "
            f"to get it: {steps}"
        )
    try:
        return Path(hub.hf_hub_download(public.repo, public.file, revision=revision))
    except (hub.errors.HfHubHTTPError, hub.errors.EntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} could not be downloaded ({reason}); to get it: {steps}") from error


def _parse(name: str) -> tuple[PublicFile, str | None]:
    """The file that "hf:..." means, and its revision if one is named."""
    short, _, revision = name.removeprefix(HUB).partition("@")
    if short in PUBLIC:
        return PUBLIC[short], revision or None
    match = _HUB_NAME.fullmatch(short)
    if match is None:
        raise InputError(
            f"{name!r} names no file of a repository: write {HUB}owner/repository/file, or {HUB} and one of "
            f"{', '.join(PUBLIC)}"
        )
    known = {(file.repo, file.file): file for file in PUBLIC.values()}
    file = PublicFile(match["repo"], match["file"], is_gated=False)
    return known.get((file.repo, file.file), file), revision or None


def _cached_revisions(cache: Path, public: PublicFile) -> list[str]:
    """Revisions that hold the file, but none is "main", as `hf download --revision` leaves it."""
    snapshots = cache / f"models--{public.repo.replace('/', '--')}" / "snapshots"
    return sorted(path.name for path in snapshots.glob("*") if (path / public.file).is_file())
