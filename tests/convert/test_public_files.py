"""Published files through the converter into a running model, and back: recorded numbers, exact names."""

import dataclasses
import json
import struct

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from modaltune_jax.convert import from_public, rules, slide_encoders, to_public
from modaltune_jax.convert.slide_encoders import read
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.models import weights as start_weights
from modaltune_jax.models.encoders.longnet import LongNetConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune
from modaltune_jax.types import InputError
from tests.golden import DATA, load, relative_error, weights
from tests.models import test_modaltune as gigapath
from tests.models import test_titan as titan

KEYS = json.loads((DATA / "checkpoint_keys.json").read_text())
GIGAPATH = [f"modaltune_gigapath_{name}" for name in ("avg_sum", "cls_cat_clinical", "avg_sum_single_task")]
TITAN = ["modaltune_titan_gene", "modaltune_titan_gene_clinical"]


def write(path, tensors, under=None):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        write_torch(path, tensors, under=under)
    return path


def hollow(path, shapes):
    """A safetensors file of full size that takes no room: zeros that no disk block holds."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        stop = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return path


def same(path, tensors):
    with open_tensors(path) as file:
        assert file.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert file[name].dtype == tensor.dtype
            np.testing.assert_array_equal(file[name], tensor, err_msg=name)


def model_of(name, folder):
    """The model of a recorded file, its weights converted as published and loaded as training does."""
    kind, module = ("modaltune-titan", titan) if "titan" in name else ("modaltune-gigapath", gigapath)
    golden, config = load(name), (titan.recorded_config if module is titan else gigapath.model_config)(name)
    source = write(folder / "best_model_weights.pt", weights(golden))
    encoder, adapter = folder / "encoder.safetensors", folder / "adapter.safetensors"
    report = from_public.convert_modaltune(source, adapter, kind, encoder)
    assert report.num_tensors == len(weights(golden))
    for path in (encoder, adapter):
        with open_tensors(path) as file:
            assert file.metadata["source_sha256"] == report.source_sha256
    model = ModalTune(config, ModalInputs(module.GROUPS, 5), rngs=nnx.Rngs(1))
    settings = start_weights.EncoderWeightsConfig("file", str(encoder))
    digest = start_weights.load_encoder_weights(model.encoder, settings, config.encoder)
    settings = start_weights.AdapterWeightsConfig(str(adapter))
    start_weights.load_adapter_weights(model, settings, config.encoder, digest)
    return model, golden, module, source, adapter, encoder


@pytest.mark.parametrize("name", [GIGAPATH[0], TITAN[1]])
def test_recorded_embeddings(name, tmp_path):
    model, golden, module, *_ = model_of(name, tmp_path)
    out = jax.jit(lambda batch: model(batch).embedding)(module.batch_of(golden, module.LENGTHS, bucket=255))
    for row, length in enumerate(module.LENGTHS):
        assert relative_error(out[row], golden[f"out/{length}"]) < 1e-4, length


@pytest.mark.parametrize("name", [*GIGAPATH, *TITAN])
def test_recorded_weights_and_the_way_back(name, tmp_path):
    """The weights with which the models' own tests find the recorded embeddings, to the last bit."""
    model, golden, module, _, adapter, encoder = model_of(name, tmp_path)
    recorded, _ = module.golden_model(name)
    jax.tree.map(np.testing.assert_array_equal, *(nnx.to_pure_dict(nnx.state(m)) for m in (model, recorded)))
    to_public.to_public(adapter, tmp_path / "back.pt", encoder)
    same(tmp_path / "back.pt", weights(golden))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_slide_encoder_files_go_there_and_back(tmp_path, suffix):
    tensors = weights(load("slide_encoder"))
    source = write(tmp_path / f"slide_encoder{suffix}", tensors, under="model")
    report = from_public.convert_encoder(source, tmp_path / "ours", "gigapath")
    assert (report.num_tensors, report.num_parameters) == (
        len(tensors),
        sum(t.size for t in tensors.values()),
    )
    to_public.to_public(tmp_path / "ours", tmp_path / f"back{suffix}")
    same(tmp_path / f"back{suffix}", tensors)
    with open_tensors(source) as public, open_tensors(tmp_path / "ours") as ours:
        jax.tree.map(
            np.testing.assert_array_equal,
            *map(jax.tree.leaves, (read(public, "gigapath"), read(ours, "gigapath"))),
        )


def test_titan_file_with_all_its_towers(tmp_path):
    encoder = {
        name: tensor
        for name, tensor in weights(load(TITAN[0])).items()
        if name.startswith(("cls_token", "proj", "patch_embed", "blocks", "norm", "attn_pool"))
    }
    extras = {"text_encoder.cls_emb": np.ones(3, np.float32), "logit_scale": np.float32([4.6])}
    public = {f"vision_encoder.{name}": tensor for name, tensor in encoder.items()}
    source = write(tmp_path / "model.safetensors", {**public, **extras})
    report = from_public.convert_encoder(source, tmp_path / "ours", "titan")
    assert report.skipped.keys() == extras.keys()
    to_public.to_public(tmp_path / "ours", tmp_path / "back.safetensors")
    same(tmp_path / "back.safetensors", public)
    unknown = write(tmp_path / "new.safetensors", {**public, "decoder.weight": np.ones(3, np.float32)})
    with pytest.raises(InputError, match=r"unexpected tensor 'decoder\.weight' \(3,\)"):
        from_public.convert_encoder(unknown, tmp_path / "ours", "titan")
    report = from_public.convert_encoder(unknown, tmp_path / "ours", "titan", ["decoder.{any}"])
    assert report.skipped == {"decoder.weight": "as asked"}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        pytest.param("prov_gigapath_slide_encoder.pth [under 'model']", "gigapath", id="gigapath"),
        pytest.param("TITAN model.safetensors [the slide encoder's part]", "titan", id="titan"),
    ],
)
def test_published_shapes_tell_the_published_sizes(tmp_path, entry, kind):
    with open_tensors(hollow(tmp_path / "weights", KEYS[entry])) as file:
        found = slide_encoders.sizes(file, rules.strip_prefix(file, "cls_token"), kind)
    published = {"gigapath": LongNetConfig.prov_gigapath, "titan": slide_encoders.TitanConfig.published}[
        kind
    ]()
    for field in ("in_dim", "width", "depth"):
        assert getattr(found, field) == getattr(published, field)


def test_what_is_no_such_file_is_said_in_a_sentence(tmp_path):
    tensors = weights(load("slide_encoder"))
    source = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(
        InputError, match=r"a\.safetensors has no tensor 'patch_embed\.0\.weight'.*not titan weights"
    ):
        from_public.convert_encoder(source, tmp_path / "x", "titan")
    with pytest.raises(InputError, match="this is no ModalTune checkpoint"):
        from_public.convert_modaltune(source, tmp_path / "x", "modaltune-gigapath")
    with pytest.raises(InputError, match="has public names already"):
        to_public.to_public(source, tmp_path / "x.pt")
    assert not (tmp_path / "x").exists()


def test_adapters_know_their_encoder(tmp_path):
    model, _, _, source, adapter, _ = model_of(GIGAPATH[0], tmp_path)
    config = gigapath.model_config(GIGAPATH[0])
    settings = start_weights.AdapterWeightsConfig(str(adapter))
    with pytest.raises(InputError, match="give the encoder it was trained on"):
        start_weights.load_adapter_weights(model, settings, config.encoder, "0" * 64)
    settings = start_weights.AdapterWeightsConfig(str(source))
    with pytest.raises(
        InputError, match=r"is not converted: run `.*modaltune_jax\.convert --from modaltune-"
    ):
        start_weights.load_adapter_weights(model, settings, config.encoder, "0" * 64)
    with pytest.raises(InputError, match="give --encoder, the gigapath weights with sha256"):
        to_public.to_public(adapter, tmp_path / "back.pt")
    tensors = weights(load("slide_encoder"))
    tensors["cls_token"] = tensors["cls_token"] + 1
    other = write(tmp_path / "other.pth", tensors, under="model")
    with pytest.raises(InputError, match=r"other\.pth holds the encoder with sha256 .* give that one"):
        to_public.to_public(adapter, tmp_path / "back.pt", other)
    assert not (tmp_path / "back.pt").exists()


def test_controls_have_no_published_weights():
    from modaltune_jax.convert.slide_encoders import kind_of
    from modaltune_jax.models.encoders.mean_pool import MeanPoolConfig

    with pytest.raises(InputError, match=r'MeanPoolConfig: set encoder_weights\.init="random"'):
        kind_of(MeanPoolConfig(4, 4))
    assert kind_of(dataclasses.replace(LongNetConfig.prov_gigapath(), width=192)) == "gigapath"
