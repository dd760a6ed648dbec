"""`python -m modaltune_jax.convert` as a user types it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from modaltune_jax.checkpoints import Checkpoints
from modaltune_jax.config import describe
from modaltune_jax.convert import __main__ as command
from modaltune_jax.convert import param_file
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.to_public import to_public
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.train import build
from modaltune_jax.types import InputError
from tests import tiny
from tests.golden import load, weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_torch(folder / "slide_encoder.pth", weights(load("slide_encoder")), under="model")
    return folder


def test_a_report_is_printed(folder, tmp_path):
    words = ["--from", "gigapath", "slide_encoder.pth", str(tmp_path / "new" / "gigapath.safetensors")]
    done = subprocess.run(
        [sys.executable, "-m", "modaltune_jax.convert", *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == ["from", "model", "read", "wrote", "to", "in"]
    told = dict(lines)
    assert told["model"] == "gigapath slide encoder, depth 6, width 32, in_dim 24"
    assert told["read"] == f"{len(weights(load('slide_encoder')))} tensors"
    with open_tensors(tmp_path / "new" / "gigapath.safetensors") as file:
        assert file.metadata["sha256"] in told["to"]
        assert file.metadata["source_sha256"] in told["from"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "required: SRC, DST", id="nothing"),
        pytest.param(["a", "b"], "one of the arguments --from --to is required", id="no direction"),
        pytest.param(["--from", "uni", "a", "b"], "invalid choice: 'uni'", id="unknown kind"),
        pytest.param(
            ["--from", "gigapath", "{0}", "{1}"], "exists: name another, or say --force", id="there"
        ),
        pytest.param(
            ["--from", "gigapath", "none.pth", "b"], "'none.pth' does not exist.*hf auth", id="missing"
        ),
        pytest.param(["--from", "conch", "{0}", "b"], "needs --tokenizer", id="no tokenizer"),
        pytest.param(
            ["--from", "titan", "{0}", "b", "--pooling", "cls"], "--pooling has no meaning", id="flag"
        ),
        pytest.param(["--to", "torch", "{0}", "b.pt"], "has public names already", id="public already"),
        pytest.param(["--to", "torch", "{1}", "b.pt"], "holds no run", id="no run"),
        pytest.param(["--to", "torch", "none", "b.pt"], "'none' does not exist", id="nothing to lead back"),
        pytest.param(["--to", "torch", "{0}", "b"], "b says no format: let it end in one of", id="suffix"),
        pytest.param(
            ["--to", "torch", "{0}", "b.pt", "--skip", "x"], "--skip has no meaning with --to torch", id="to"
        ),
        pytest.param(
            ["--from", "modaltune-titan", "{0}", "b", "--encoder", "x"],
            "--encoder has no meaning with --from modaltune-titan",
            id="encoder is for the way back",
        ),
        pytest.param(["--from", "gigapath", "{0}", "b.pth"], "call it b.safetensors", id="no torch file"),
        pytest.param(["--from", "gigapath", "{0}", "{1}", "--force"], "is no file", id="folder as target"),
        pytest.param(["--from", "gigapath", "{0}", "none/"], "none/ is no file", id="slash at the end"),
        pytest.param(
            ["--from", "bert", "hf:a/b", "b"], "bert reads a folder: get it with", id="bert of the hub"
        ),
        pytest.param(
            ["--from", "gigapath", "{0}", "b", "--skip", "x.*"], "no tensor has a name like", id="skip"
        ),
        pytest.param(
            ["--from", "gigapath", "{0}", "b", "--skip", "{{a b"],
            "no tensor has a name like",
            id="open brace",
        ),
        pytest.param(["--from", "gigapath", "{0}", "b", "--skip", "{{1}}"], "is no template", id="template"),
        pytest.param(
            ["--from", "gigapath", "{0}", "b", "--skip", "cls_{{any}}"],
            "'cls_token' is to be left out, but cls_token needs it",
            id="skip what is needed",
        ),
        pytest.param(
            ["--from", "titan", "{0}", "b"],
            "not titan weights but look like those of gigapath",
            id="other kind",
        ),
        pytest.param(
            ["--from", "conch", "{0}", "b", "--tokenizer", "{0}"],
            "is no tokenizer, which is a JSON",
            id="binary",
        ),
    ],
)
def test_mistakes_end_in_a_sentence(folder, tmp_path, words, message):
    places = (folder / "slide_encoder.pth", tmp_path)
    with pytest.raises(InputError, match=message):
        command.main([word.format(*places) for word in words])


def test_force_replaces(folder, tmp_path, capsys):
    target = tmp_path / "ours"
    for words in ([], ["--force"]):
        command.main(["--from", "gigapath", str(folder / "slide_encoder.pth"), str(target), *words])
    assert capsys.readouterr().out.count("parameters' sha256") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_what_is_read_is_never_replaced(folder, tmp_path):
    whole, encoder = tmp_path / "whole.safetensors", tmp_path / "encoder.safetensors"
    for place in (whole, encoder):
        place.write_bytes((folder / "slide_encoder.pth").read_bytes())
    link = tmp_path / "link.safetensors"
    link.symlink_to(whole)
    before = whole.read_bytes()
    for target in (whole, link):
        with pytest.raises(InputError, match=f"{target.name} is what is read, and would be lost"):
            command.main(["--from", "gigapath", str(whole), str(target), "--force"])
    words = ["--from", "modaltune-gigapath", str(whole), str(tmp_path / "adapter"), "--write-encoder"]
    with pytest.raises(InputError, match=r"encoder\.safetensors exists"):
        command.main([*words, str(encoder)])
    with pytest.raises(InputError, match="is what is read"):
        command.main([*words, str(whole), "--force"])
    with pytest.raises(InputError, match="DST and --write-encoder are both"):
        command.main([*words, str(tmp_path / "adapter")])
    with pytest.raises(InputError, match="is the encoder that is read, and would be lost"):
        command.main(["--to", "torch", str(whole), str(encoder), "--encoder", str(encoder), "--force"])
    assert whole.read_bytes() == encoder.read_bytes() == before


def test_files_that_need_another_command(folder, tmp_path):
    ours, back = str(tmp_path / "ours"), str(tmp_path / "back.pt")
    command.main(["--from", "gigapath", str(folder / "slide_encoder.pth"), ours])
    with pytest.raises(InputError, match=r"is converted already \(gigapath\): use it as it is"):
        command.main(["--from", "gigapath", ours, str(tmp_path / "b")])
    with pytest.raises(InputError, match=r"is no adapter.*leave --encoder out"):
        command.main(["--to", "torch", ours, back, "--encoder", str(folder / "slide_encoder.pth")])
    text = tmp_path / "model.safetensors"
    param_file.write(text, {"w": np.ones(2, np.float32)}, kind="conch", about={})
    with pytest.raises(InputError, match="belongs to a conch text encoder: give the folder"):
        command.main(["--to", "torch", str(text), back])
    whole = tmp_path / "best_model_weights.pt"
    write_torch(whole, weights(load("modaltune_gigapath_avg_sum")))
    with pytest.raises(InputError, match=r"holds a whole ModalTune model.*--from modaltune-gigapath"):
        command.main(["--from", "gigapath", str(whole), str(tmp_path / "b")])


def test_mistyped_paths_are_told_before_the_slow_imports(tmp_path):
    """jax takes a second to import."""
    code = (
        "import sys; from modaltune_jax.convert import __main__ as command\n"
        "try: command.main(sys.argv[1:])\n"
        "finally: assert 'jax' not in sys.modules"
    )
    for words in (["--from", "gigapath"], ["--to", "torch"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words, str(tmp_path / "none"), "b.pt"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "none' does not exist" in done.stderr
        assert "AssertionError" not in done.stderr


def test_help_names_every_kind(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    out = capsys.readouterr().out
    for kind in ("gigapath", "titan", "modaltune-gigapath", "modaltune-titan", "conch", "titan-text", "bert"):
        assert f"  {kind} " in out
    assert "hf:gigapath" in out


def test_a_trained_adapter_goes_out_and_in_again(tmp_path):
    """A run on encoder weights from a file, to torch, and from there to the start of another run."""
    config, records, targets = tiny.experiment(tmp_path)
    both = config.model.modalities
    random, _ = build(config, 5, both, records, targets)
    encoder = tmp_path / "encoder"
    param_file.write(encoder, jax.tree.map(np.asarray, random.frozen["encoder"]), kind="gigapath", about={})
    start_from = dataclasses.replace(config.encoder_weights, init="file", path=str(encoder))
    config = dataclasses.replace(config, encoder_weights=start_from)
    run, state = build(config, 0, both, records, targets)
    assert run.encoder_hash == random.encoder_hash
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(describe(config)))
    with Checkpoints(folder / "checkpoints", config.checkpoint) as checkpoints:
        kept = {"trainable": state.trainable, "projector": targets.projector.to_dict()}
        checkpoints.save("best", 1, kept, {"encoder": run.encoder_hash})
    command.main(["--to", "torch", str(folder), str(tmp_path / "a.pt"), "--encoder", str(encoder)])
    command.main(["--from", "modaltune-gigapath", str(tmp_path / "a.pt"), str(tmp_path / "adapter")])
    start_from = dataclasses.replace(config.adapter_weights, path=str(tmp_path / "adapter"))
    again, start = build(dataclasses.replace(config, adapter_weights=start_from), 1, both, records, targets)
    jax.tree.map(np.testing.assert_array_equal, start.trainable, state.trainable)
    assert again.encoder_hash == run.encoder_hash
    with pytest.raises(InputError, match="give --encoder, the gigapath weights with sha256"):
        to_public(folder, tmp_path / "b.pt")
