"""Where weights lie: a plain path, or a file of a repository in the local Hugging Face cache."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from modaltune_jax.types import InputError

HUB = "hf:"
"""In front of a name, says that it is a file of a Hugging Face repository rather than a path."""

_HUB_NAME = re.compile(r"(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(@(?P<revision>[^@]+))?")


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

    def steps(self) -> str:
        """What a user has to type to have the file."""
        steps = [f"`hf download {self.repo} {self.file}`", f"give it as {HUB}{self.repo}/{self.file}"]
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
      name: a path, "hf:owner/repository/file", the same with "@revision" behind it, or "hf:" and a key of
        `PUBLIC`.
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
    raise InputError(f"{text!r} does not exist: give the path of the weights{where}")


def _in_hub(name: str, *, download: bool) -> Path:
    short = name.removeprefix(HUB)
    public, revision = PUBLIC.get(short), None
    if public is None:
        match = _HUB_NAME.fullmatch(short)
        if match is None:
            raise InputError(
                f"{name!r} names no file of a repository: write {HUB}owner/repository/file, or "
                f"{HUB} and one of {', '.join(PUBLIC)}"
            )
        known = {(file.repo, file.file): file for file in PUBLIC.values()}
        public = known.get((match["repo"], match["file"]), PublicFile(match["repo"], match["file"], False))
        revision = match["revision"]
    import huggingface_hub as hub

    cached = hub.try_to_load_from_cache(public.repo, public.file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    if not download:
        raise InputError(
            f"{name} is not in the Hugging Face cache {hub.constants.HF_HUB_CACHE}, and nothing is "
            f"downloaded unless asked for; to get it: {public.steps()}"
        )
    try:
        return Path(hub.hf_hub_download(public.repo, public.file, revision=revision))
    except (hub.errors.HfHubHTTPError, hub.errors.EntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} could not be downloaded ({reason}); to get it: {public.steps()}") from error
