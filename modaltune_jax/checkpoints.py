"""Orbax checkpoints of a run: `latest` to resume from, `best` to use. Never the encoder's weights."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from modaltune_jax.signals import stops_wait
from modaltune_jax.types import InputError

FORMAT = 3
"""3: batches come in another order than before."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is kept, and what is best.

    Attributes:
      every_epochs: epochs between probes on the validation split, with a checkpoint before each.
      every_minutes: minutes between further checkpoints, which a kill loses at most; 0 for none.
      grace_seconds: between SIGTERM, SIGUSR1 or Ctrl-C and the end of the process at most; schedulers mostly
        kill after 30.
      keep: latest checkpoints kept.
      best: scores on validation whose mean picks the best checkpoint: "subtype" (balanced accuracy),
        "survival" (Harrell's c) and "site" of the probes; "survival:risk", "survival:hazard",
        "subtype:classes" and "subtype:similarity" of the heads; `("last",)` takes the last step.
    """

    every_epochs: int
    every_minutes: float
    grace_seconds: float
    keep: int
    best: tuple[str, ...]


class Restored(NamedTuple):
    """A checkpoint: arrays as they were saved, and what was written beside them."""

    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in `directory/latest` and `directory/best`, folders that saving makes.

    Saving is atomic: Orbax writes to a temporary folder and renames it. A kill loses the save under way
    and nothing else. Ctrl-C waits for it: Orbax's threads wait five minutes for a save that is broken off.
    """

    def __init__(self, directory: Path, config: CheckpointConfig):
        self._directory = Path(directory).absolute()
        self._keep = {"latest": config.keep, "best": 1}
        self._seconds = 60 * config.every_minutes
        self._saved = time.monotonic()
        self._managers: dict[str, Any] = {}

    @property
    def is_due(self) -> bool:
        """Whether the latest checkpoint is as old as `every_minutes`."""
        return 0 < self._seconds <= time.monotonic() - self._saved

    def save(self, which: str, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves to "latest" or "best"; the write goes on in the background."""
        import orbax.checkpoint as ocp

        manager = self._manager(which)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"format": FORMAT, **meta})
        )
        with stops_wait():
            if which == "latest" and "best" in self._managers:
                # A run that goes on from here must find the best of before.
                self._managers["best"].wait_until_finished()
            if step in manager.all_steps():
                # A kill came between "best" and "latest", so that this step is done a second time.
                manager.delete(step)
            manager.save(step, args=items, force=True)
        if which == "latest":
            self._saved = time.monotonic()

    def restore(self, which: str, like: Any) -> Restored | None:
        """The newest checkpoint of "latest" or "best"; None if there is none.

        Args:
          which: "latest" or "best".
          like: a state of the same structure; its shapes and shardings are the restored ones, so that a
            run may go on on another mesh.

        Raises:
          InputError: the checkpoint is damaged, of another format or of another model.
        """
        import orbax.checkpoint as ocp

        meta = self.restore_meta(which)
        if meta is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        step = self._manager(which).latest_step()
        return Restored(self._read(which, step, state=ocp.args.StandardRestore(abstract)), meta)

    def restore_meta(self, which: str) -> dict[str, Any] | None:
        """What was written beside the newest checkpoint of "latest" or "best"; None if there is none.

        Raises:
          InputError: the checkpoint is damaged or of another format.
        """
        import orbax.checkpoint as ocp

        step = self._latest_step(which)
        if step is None:
            return None
        meta = self._read(which, step, meta=ocp.args.JsonRestore())
        if meta["format"] != FORMAT:
            raise InputError(
                f"{self._directory / which / str(step)} has checkpoint format {meta['format']}, this version "
                f"reads {FORMAT}: train again, or use the version that wrote it"
            )
        return meta

    def restore_as_saved(self, which: str) -> Restored:
        """The newest checkpoint, in the structure it was saved in, on one device.

        Raises:
          InputError: there is none, or it is damaged or of another format.
        """
        step = self._latest_step(which)
        if step is None:
            raise InputError(f"{self._directory} holds no {which} checkpoint: train first")
        saved = self._manager(which).item_metadata(step)["state"]
        placed = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), saved)
        restored = self.restore(which, like)
        assert restored is not None
        return restored

    def _latest_step(self, which: str) -> int | None:
        # Without the check, looking would make the folder.
        return self._manager(which).latest_step() if (self._directory / which).is_dir() else None

    def _manager(self, which: str) -> Any:
        import orbax.checkpoint as ocp

        if which not in self._managers:
            # Without names of their own, savings of "best" and "latest" would wait at each other's barriers.
            names = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=which)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep[which], multiprocessing_options=names
            )
            self._managers[which] = ocp.CheckpointManager(self._directory / which, options=options)
        return self._managers[which]

    def _read(self, which: str, step: int, **item: Any) -> Any:
        import orbax.checkpoint as ocp

        (name,) = item
        try:
            return self._manager(which).restore(step, args=ocp.args.Composite(**item))[name]
        except Exception as error:  # damage shows as anything from KeyError to bare Exception
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(
                f"{self._directory / which / str(step)} cannot be restored ({reason}): it is damaged, or of "
                "another model than the config describes; remove it to go on from the checkpoint before, or "
                "choose another --workdir"
            ) from error

    def close(self) -> None:
        """Waits for the writes under way."""
        with stops_wait():
            for manager in self._managers.values():
                manager.wait_until_finished()
                manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
