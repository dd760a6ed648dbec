"""Weight files between torch and this package, in both directions; needs torch."""

import ml_dtypes
import numpy as np
import pytest

from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.types import InputError
from tests.tensors import DTYPES, every_kind, same

torch = pytest.importorskip("torch")


def read(path):
    with open_tensors(path) as file:
        return dict(file)


def as_numpy(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_writes_and_we_read(tmp_path, is_zip, protocol):
    torch.manual_seed(0)
    w = torch.randn(3, 5)
    names = [name.replace("bool_", "bool") for name in (np.dtype(dtype).name for dtype in DTYPES)]
    tensors = {name: (4 * w).to(getattr(torch, name)) for name in names}
    tensors |= {"w": w, "t": w.t(), "row": w[1], "column": w[:, 2], "parameter": torch.nn.Parameter(w[1:])}
    tensors |= {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "uint16": torch.arange(3).to(torch.uint16),
    }
    marked = torch.nn.Parameter(w)
    marked.tag = "kept by _rebuild_parameter_with_state"
    tensors["marked"] = marked
    path = tmp_path / "weights.pth"
    torch.save(
        {"epoch": 3, "model": tensors, "rng": torch.get_rng_state()},
        path,
        _use_new_zipfile_serialization=is_zip,
        pickle_protocol=protocol,
    )
    same(read(path), {name: as_numpy(tensor) for name, tensor in tensors.items()})


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_modules_and_optimizers_of_torch(tmp_path, is_zip):
    inner = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    inner.half()
    module = torch.nn.DataParallel(inner)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2, 3, dtype=torch.float16)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint.pth"
    torch.save(
        {"state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7, "loss": 0.5},
        path,
        _use_new_zipfile_serialization=is_zip,
    )
    same(read(path), {name: as_numpy(tensor) for name, tensor in inner.state_dict().items()})


@pytest.mark.parametrize("under", [None, "model"])
@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_we_write_and_torch_reads(tmp_path, under, mmap):
    path = tmp_path / "weights.pth"
    write_torch(path, every_kind(), under=under)
    read_back = torch.load(path, weights_only=True, mmap=mmap)
    read_back = read_back if under is None else read_back[under]
    assert all(tensor.is_contiguous() for tensor in read_back.values())
    same({name: as_numpy(tensor) for name, tensor in read_back.items()}, every_kind())


def test_whole_objects_of_torch_are_refused(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(InputError, match=r"names 'torch\.nn\.modules\.linear\.Linear'"):
        open_tensors(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(InputError, match="TorchScript"):
        open_tensors(path)
    torch.save({"x": torch.zeros(1).expand(1000)}, path)
    with pytest.raises(InputError, match=r"save it again after \.contiguous\(\)"):
        open_tensors(path)
    torch.save({"x": torch.tensor([1 + 2j])}, path)
    with pytest.raises(InputError, match=r"names 'torch\.ComplexFloatStorage'"):
        open_tensors(path)
    torch.save({"x": torch.tensor([1 + 2j]).conj().imag}, path)
    with pytest.raises(InputError, match="negated view"):
        open_tensors(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"x": torch.zeros(2)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(InputError, match="set_crc32_options"):
        open_tensors(path)
