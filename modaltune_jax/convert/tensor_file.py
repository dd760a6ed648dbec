"""One door to weight files, whether torch or safetensors wrote them: named tensors, read one at a time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.convert import safetensors_file, torch_file
from modaltune_jax.convert.stored_tensor import StoredTensor
from modaltune_jax.convert.torch_names import Tensor, shown
from modaltune_jax.types import InputError

WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts put the weights, beside the epoch and the optimizer."""

_PREFIX = "module."
"""What torch's DataParallel puts before every name."""


# If this said that values are arrays, a type checker at run time would read one from every file it meets.
class TensorFile(Mapping[str, Any]):
    """An open weight file. Every access reads its tensor from the file; nothing is kept.

    Attributes:
      path: the file.
      kind: "torch" or "safetensors".
      metadata: the entry `__metadata__` of a safetensors header; empty for torch.
      shapes: by name.
      dtypes: by name.
      num_bytes: of all tensors together, once read.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        file: io.BufferedReader,
        tensors: Mapping[str, StoredTensor],
        metadata: Mapping[str, str],
    ) -> None:
        self.path = path
        self.kind = kind
        self.metadata: dict[str, str] = dict(metadata)
        self._file = file
        self._tensors = dict(tensors)
        self.shapes: dict[str, tuple[int, ...]] = {name: t.shape for name, t in self._tensors.items()}
        self.dtypes: dict[str, np.dtype] = {name: t.dtype for name, t in self._tensors.items()}
        self.num_bytes: int = sum(tensor.num_bytes for tensor in self._tensors.values())

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads one tensor.

        Raises:
          KeyError: there is none of this name.
          InputError: its bytes are damaged.
        """
        return self._tensors[name].read(self._file, _label(self.path, name))

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()


def open_tensors(path: str | Path, bare: str = "") -> TensorFile:
    """Opens a weight file of either kind, told apart by what it holds and not by its name.

    In a torch file, weights may lie under one of `WRAPPERS`; what lies beside that key is ignored. A prefix
    "module." that all names share is dropped. No file can make this run code.

    Args:
      path: of the file.
      bare: the name of a tensor that a torch file holds alone, without a dict; `""` refuses such a file.

    Raises:
      InputError: no such file, or no whole and unambiguous set of named tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {kind}; give the path of a weight file (.pth, .pt, .bin, .safetensors)")
    file = path.open("rb")
    try:
        return _open(path, file, bare)
    except BaseException:
        file.close()
        raise


def sha256(path: str | Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path, file: io.BufferedReader, bare: str) -> TensorFile:
    head = file.read(512)
    kind = "torch"
    metadata: dict[str, str] = {}
    if head.startswith(torch_file.ZIP_MAGIC):
        tensors = _state_dict(torch_file.read_zip(file, path), bare)
    elif head[8:9] == b"{":
        # Before the next, since the length of this header may begin like a pickle, whose ninth byte differs.
        kind = "safetensors"
        tensors, metadata = safetensors_file.read_header(file, path)
    elif head.startswith(b"\x80"):
        tensors = _state_dict(torch_file.read_legacy(file, path), bare)
    else:
        raise InputError(f"{path} {_mistake(head)}")
    if not tensors:
        raise InputError(f"{path} holds no tensors; give the file with the weights")
    if all(name.startswith(_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return TensorFile(path, kind, file, tensors, metadata)


def _label(path: Path, name: str) -> str:
    return f"{path}: tensor {shown(name)}"


def _state_dict(contents: torch_file.TorchContents, bare: str) -> dict[str, StoredTensor]:
    """The tensors of a torch file, wherever they lie in it."""
    path, state = contents.path, contents.value
    if bare and isinstance(state, Tensor):
        state = {bare: state}
    if not isinstance(state, dict):
        raise InputError(
            f"{path} holds an object {shown(state)}, not a dict of tensors; "
            "save the weights by name: torch.save(model.state_dict(), ...)"
        )
    wrappers = [key for key in WRAPPERS if isinstance(state.get(key), dict)]
    if len(wrappers) > 1:
        raise InputError(
            f"{path} has weights under {' and '.join(wrappers)}, and it is not clear which are meant; "
            "save those that are: torch.save(checkpoint[...], ...)"
        )
    if wrappers:
        state = state[wrappers[0]]
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise InputError(
                f"{path} has under the key {shown(name)} an object {shown(value)} among its tensors, sought "
                f"at the top and under {', '.join(WRAPPERS)}; save the dict of tensors alone"
            )
    return {name: contents.find(tensor, _label(path, name)) for name, tensor in state.items()}


def _mistake(head: bytes) -> str:
    """What a file that is no weight file is, and what to do."""
    if not head:
        return "is empty; download it again"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a git-lfs pointer that only stands for the weights; run `git lfs pull` in its folder"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return (
            "is a web page, as is saved in place of weights when a log-in or an access request is missing; "
            "open the link in a browser, log in, and download it again"
        )
    if head[257:262] == b"ustar":
        return "is a tar archive, as the first versions of torch wrote; save it again with a later torch"
    return "is neither a torch checkpoint nor a safetensors file; give the file with the weights"
