"""Orbax checkpoints of a run: `latest` to resume from, `best` to use. Never the encoder's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from modaltune_jax.types import InputError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is kept, and what is best.

    Attributes:
      every_epochs: epochs between probes on the validation split, each followed by a checkpoint.
      keep: latest checkpoints kept.
      best: targets of the validation probes whose mean picks the best checkpoint: "subtype"
        (balanced accuracy), "survival" (Harrell's c), "site"; `("last",)` takes the last step.
    """

    every_epochs: int
    keep: int
    best: tuple[str, ...]


class Restored(NamedTuple):
    """A checkpoint: arrays as they were saved, and what was written beside them."""

    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in `directory/latest` and `directory/best`.

    Saving is atomic: Orbax writes to a temporary folder and renames it. A kill loses the save under way
    and nothing else.
    """

    def __init__(self, directory: Path, config: CheckpointConfig):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._managers = {
            name: ocp.CheckpointManager(
                Path(directory).absolute() / name, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
            )
            for name, keep in (("latest", config.keep), ("best", 1))
        }

    def save(self, which: str, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves to "latest" or "best"; the write goes on in the background."""
        args = self._ocp.args
        self._managers[which].save(
            step,
            args=args.Composite(
                state=args.StandardSave(state), meta=args.JsonSave({"format": FORMAT, **meta})
            ),
            force=True,
        )

    def restore(self, which: str, like: Any) -> Restored | None:
        """The newest checkpoint of "latest" or "best"; None if there is none.

        Args:
          which: "latest" or "best".
          like: a state of the same structure; its shapes and shardings are the restored ones, so that a
            run may go on on another mesh.

        Raises:
          InputError: the checkpoint is of another format or of another model.
        """
        manager = self._managers[which]
        step = manager.latest_step()
        if step is None:
            return None
        args = self._ocp.args
        abstract = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
        meta = manager.restore(step, args=args.Composite(meta=args.JsonRestore())).meta
        if meta["format"] != FORMAT:
            raise InputError(
                f"{manager.directory}/{step} has checkpoint format {meta['format']}, this version reads {FORMAT}: "
                "train again, or use the version that wrote it"
            )
        try:
            state = manager.restore(step, args=args.Composite(state=args.StandardRestore(abstract))).state
        except ValueError as error:
            raise InputError(
                f"{manager.directory}/{step} was saved from another model than the config describes "
                f"({str(error).splitlines()[0]}); use its own config or another workdir"
            ) from error
        return Restored(state, meta)

    def close(self) -> None:
        """Waits for the writes under way."""
        for manager in self._managers.values():
            manager.wait_until_finished()
            manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
