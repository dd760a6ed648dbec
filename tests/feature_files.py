"""Files of tile features as the tools write them: names, types, chunks and attributes included."""

import math
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np

from tests import torch_bytes as tb

_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def bag(num_tiles=5, width=4, dtype=np.float32, seed=0, step=512):
    """Features, and int64 coordinates of tiles on a grid with gaps."""
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(40 * 40, num_tiles, replace=False))
    coords = np.stack([cells // 40, cells % 40], axis=1) * step
    return rng.normal(size=(num_tiles, width)).astype(dtype), coords.astype(np.int64)


def write_hdf5(path, datasets, attributes=None, chunk=1):
    """As TRIDENT and CLAM do: datasets that can grow, in chunks of some rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            rows = values.shape[1:]
            dataset = file.create_dataset(
                name, values.shape, values.dtype, maxshape=(None, *rows), chunks=(chunk, *rows)
            )
            dataset[:] = values
            for key, value in (attributes or {}).get(name, {}).items():
                dataset.attrs[key] = value
    return path


def trident_attributes(patch_size=256, scanned=40, shown=20, **changed):
    return {
        "patch_size": patch_size,
        "patch_size_level0": patch_size * scanned // shown,
        "level0_magnification": scanned,
        "target_magnification": shown,
        "overlap": 0,
        "name": "a slide",
        "savetodir": "jobs/20x_256px_0px_overlap",
        "level0_width": 40000,
        "level0_height": 30000,
    } | changed


def write_trident(path, features, coords, encoder="uni_v1", **changed):
    saved = {"name": path.stem, "savetodir": str(path.parent), "encoder": encoder}
    return write_hdf5(
        path,
        {"features": features, "coords": coords},
        {"features": saved, "coords": trident_attributes(**changed)},
    )


def write_clam(folder: Path, id, features, coords, level=0, downsample=(1.0, 1.0), patch_size=256):
    """All that CLAM writes of a slide; returns the file of features."""
    coords = coords.astype(np.int32)
    attributes = {
        "patch_size": patch_size,
        "patch_level": level,
        "downsample": downsample,
        "downsampled_level_dim": (np.int64(5000), np.int64(4000)),
        "level_dim": (5000, 4000),
        "name": id,
        "save_path": str(folder / "patches"),
    }
    write_hdf5(folder / f"patches/{id}.h5", {"coords": coords}, {"coords": attributes})
    write_bare_tensor(folder / f"pt_files/{id}.pt", features)
    return write_hdf5(folder / f"h5_files/{id}.h5", {"features": features, "coords": coords}, chunk=32)


def write_gigapath(path, features, coords):
    return write_hdf5(path, {"features": features, "coords": coords})


def stamp_coords(cells, mpp, tile_um=256.0):
    """Micrometres of tiles of a slide, as STAMP counts them region by region."""
    in_pixels = math.ceil(tile_um / mpp)
    in_region = max(int(1024 * mpp // tile_um), 1)
    region, tile = np.divmod(cells, in_region)
    return (region * (in_pixels * in_region) * mpp + tile * tile_um).astype(np.float32)


def write_stamp(path, features, coords_um, **changed):
    attributes = {
        "stamp_version": "2.4.0",
        "extractor": "uni2",
        "unit": "um",
        "tile_size_um": 256.0,
        "tile_size_px": 224,
        "code_hash": "0123abcd",
        "feat_type": "tile",
    } | changed
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["coords"] = coords_um
        file["feats"] = features
        for name, value in attributes.items():
            if value is not None:
                file.attrs[name] = value
    return path


def write_modaltune(path, features, coords):
    """`torch.save` of a dict, which is no OrderedDict."""
    items = {"features": features, "coords": coords}
    data = b"".join(
        tb.text(name) + _tensor(str(key), array) for key, (name, array) in enumerate(items.items())
    )
    storages = {str(key): array.tobytes() for key, array in enumerate(items.values())}
    return tb.write_zip(path, tb.pickle(b"}(" + data + b"u"), storages, root=path.stem)


def write_bare_tensor(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    return tb.write_zip(path, tb.pickle(_tensor("0", array)), {"0": array.tobytes()}, root=path.stem)


def _tensor(key, array):
    source = tb.storage(_STORAGES[array.dtype.name], key, array.size)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return tb.tensor(source, array.shape, strides)


def write_zarr(path, features, coords, version=3, **attributes):
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("features", data=features)
    group.create_array("coords", data=coords)
    group.attrs.update(attributes)
    return path


def as_void(features):
    """What h5py and numpy make of bfloat16."""
    return features.astype(ml_dtypes.bfloat16).view("V2")
