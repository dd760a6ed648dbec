"""Checkpoints: whole, of the right model, and never in the way of a second try."""

import gc
import shutil
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.checkpoints import FORMAT, CheckpointConfig, Checkpoints
from modaltune_jax.types import InputError

# Orbax leaves the coroutines of a read that failed to the garbage collector, which complains.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = CheckpointConfig(every_epochs=1, every_minutes=0.0, grace_seconds=25.0, keep=2, best=("last",))


@pytest.fixture(autouse=True)
def collect_garbage():
    yield
    gc.collect()


def state(value: float) -> dict:
    return {"kernel": jnp.full((8, 8), value), "step": jnp.int32(value)}


def save(folder: Path, which: str, *steps: int) -> None:
    with Checkpoints(folder, CONFIG) as checkpoints:
        for step in steps:
            checkpoints.save(which, step, state(step), {"step": step})


def restore(folder: Path, which: str, like: dict | None = None):
    with Checkpoints(folder, CONFIG) as checkpoints:
        return checkpoints.restore(which, state(0) if like is None else like)


def kept(folder: Path, which: str) -> list[int]:
    return sorted(int(path.name) for path in (folder / which).iterdir())


def test_the_newest_comes_back(tmp_path):
    save(tmp_path, "latest", 1, 2, 3)
    save(tmp_path, "best", 1, 2)
    assert kept(tmp_path, "latest") == [2, 3]
    assert kept(tmp_path, "best") == [2]
    restored = restore(tmp_path, "latest")
    np.testing.assert_array_equal(restored.state["kernel"], np.full((8, 8), 3.0))
    assert int(restored.state["step"]) == 3
    assert restored.meta == {"format": FORMAT, "step": 3}
    assert restore(tmp_path, "best").meta["step"] == 2


def test_looking_for_a_checkpoint_makes_no_folder(tmp_path):
    assert restore(tmp_path / "none", "best") is None
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_done_again_replaces_its_checkpoint(tmp_path):
    """A kill between the saves of "best" and "latest" makes a run come by the same step twice."""
    save(tmp_path, "best", 2)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save("best", 2, state(7), {"step": 2})
    assert int(restore(tmp_path, "best").state["step"]) == 7


def test_a_save_that_a_kill_cut_off_is_not_seen(tmp_path):
    save(tmp_path, "latest", 1)
    shutil.copytree(tmp_path / "latest/1", tmp_path / "latest/2.orbax-checkpoint-tmp")
    assert restore(tmp_path, "latest").meta["step"] == 1
    save(tmp_path, "latest", 2)
    assert restore(tmp_path, "latest").meta["step"] == 2


def test_an_interrupt_waits_for_the_save(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    save = ocp.CheckpointManager.save

    def interrupted(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted)
    with Checkpoints(tmp_path, CONFIG) as checkpoints, pytest.raises(KeyboardInterrupt):
        checkpoints.save("latest", 1, state(1), {"step": 1})
    assert restore(tmp_path, "latest").meta["step"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def damage_meta(step: Path) -> None:
    (step / "meta/metadata").write_text('{"format": 1, "st')


def damage_arrays(step: Path) -> None:
    (step / "state/manifest.ocdbt").write_bytes(b"")


def remove_all(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


@pytest.mark.parametrize("damage", [damage_meta, damage_arrays, remove_all])
def test_damage_is_named_and_the_one_before_is_still_good(tmp_path, damage):
    save(tmp_path, "latest", 1, 2)
    damage(tmp_path / "latest/2")
    with pytest.raises(InputError, match=r"latest/2 cannot be restored .* damaged") as info:
        restore(tmp_path, "latest")
    assert "\n" not in str(info.value)
    shutil.rmtree(tmp_path / "latest/2")
    assert restore(tmp_path, "latest").meta["step"] == 1


@pytest.mark.parametrize(
    "like",
    [
        pytest.param({"kernel": jnp.zeros((8, 4)), "step": jnp.int32(0)}, id="shape"),
        pytest.param({"bias": jnp.zeros((8, 8)), "step": jnp.int32(0)}, id="name"),
        pytest.param({"kernel": jnp.zeros((8, 8))}, id="fewer"),
        pytest.param({**state(0), "bias": jnp.zeros(8)}, id="more"),
    ],
)
def test_another_model_is_refused(tmp_path, like):
    save(tmp_path, "latest", 1)
    with pytest.raises(InputError, match="another model"):
        restore(tmp_path, "latest", like)


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("modaltune_jax.checkpoints.FORMAT", 99)
    save(tmp_path, "latest", 1)
    monkeypatch.undo()
    with pytest.raises(InputError, match=f"format 99, this version reads {FORMAT}"):
        restore(tmp_path, "latest")
