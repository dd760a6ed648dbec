"""Orbax checkpoints of a run: `latest` to resume from, `best` to use. Never the encoder's weights."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
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
      best: scores on validation whose mean picks the best checkpoint: "subtype" (balanced accuracy),
        "survival" (Harrell's c) and "site" of the probes; "survival:risk", "survival:hazard" and
        "subtype:similarity" of the heads; `("last",)` takes the last step.
    """

    every_epochs: int
    keep: int
    best: tuple[str, ...]


class Restored(NamedTuple):
    """A checkpoint: arrays as they were saved, and what was written beside them."""

    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in `directory/latest` and `directory/best`, folders that saving makes.

    Saving is atomic: Orbax writes to a temporary folder and renames it. A kill loses the save under way
    and nothing else.
    """

    def __init__(self, directory: Path, config: CheckpointConfig):
        self._directory = Path(directory).absolute()
        self._keep = {"latest": config.keep, "best": 1}
        self._managers: dict[str, Any] = {}

    def save(self, which: str, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves to "latest" or "best"; the write goes on in the background."""
        import orbax.checkpoint as ocp

        manager = self._manager(which)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"format": FORMAT, **meta})
        )
        with _interrupts_wait():
            if step in manager.all_steps():
                # A kill came between "best" and "latest", so that this step is done a second time.
                manager.delete(step)
            manager.save(step, args=items, force=True)

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

        step = self._manager(which).latest_step() if (self._directory / which).is_dir() else None
        if step is None:
            return None
        folder = self._directory / which / str(step)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        meta = self._read(which, step, meta=ocp.args.JsonRestore())
        if meta["format"] != FORMAT:
            raise InputError(
                f"{folder} has checkpoint format {meta['format']}, this version reads {FORMAT}: train again, "
                "or use the version that wrote it"
            )
        return Restored(self._read(which, step, state=ocp.args.StandardRestore(abstract)), meta)

    def restore_as_saved(self, which: str) -> Restored:
        """The newest checkpoint, in the structure it was saved in, on one device.

        Raises:
          InputError: there is none, or it is damaged or of another format.
        """

        step = self._manager(which).latest_step() if (self._directory / which).is_dir() else None
        if step is None:
            raise InputError(f"{self._directory} holds no {which} checkpoint: train first")
        saved = self._manager(which).item_metadata(step)["state"]
        placed = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), saved)
        restored = self.restore(which, like)
        assert restored is not None
        return restored

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
        with _interrupts_wait():
            for manager in self._managers.values():
                manager.wait_until_finished()
                manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Holds Ctrl-C back until the end: Orbax's threads wait five minutes for a save that is broken off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = []
    handler = signal.signal(signal.SIGINT, lambda *received: held.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt
