"""What the compilation for TPUs asks and says; one small model is compiled where libtpu is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compile_tpu

ROOT = Path(__file__).parents[1]


def test_every_chip_with_every_mesh_and_length():
    words = ["--chips", "v5e", "v5p", "--meshes", "1,1,1", "4,2,2", "--tiles", "512", "2048", "--cases", "2"]
    plans = compile_tpu.parse_arguments(words).plans
    assert len(plans) == len(set(plans)) == 8
    assert {plan.topology for plan in plans} == {"v5e:2x2", "v5e:4x4", "v5p:2x2x1", "v5p:2x2x4"}
    assert {plan.cases for plan in plans} == {2}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param("--meshes 4,2", "must be data,fsdp,sequence", id="two axes"),
        pytest.param("--meshes 16,16,2", "256 chips at most", id="more chips than a slice"),
        pytest.param("--chips v4", "invalid choice", id="unknown chip"),
        pytest.param("--tiles 0", "must be 1 or more", id="no tiles"),
    ],
)
def test_wrong_flags(capsys, words, says):
    with pytest.raises(SystemExit) as stopped:
        compile_tpu.parse_arguments(words.split())
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_collectives_of_a_program():
    text = """
  %a = f32[8,4]{1,0} all-reduce(f32[8,4]{1,0} %x), replica_groups={}
  %b = (bf16[2,4]{1,0}, bf16[3]{0}) all-reduce(%x, %y), to_apply=%add
  %c = (f32[2]{0}, f32[16]{0}) all-gather-start(f32[2]{0} %x), dimensions={0}
  %d = f32[16]{0} all-gather-done(%c)
  %e = f32[2]{0} add(%all-reduce.1, %x)
"""
    assert compile_tpu.collectives(text) == {
        "all-gather": {"count": 1, "bytes": 64},
        "all-reduce": {"count": 2, "bytes": 128 + 16 + 6},
    }


@pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="libtpu (extra tpu-compiler) is not installed"
)
def test_a_small_model_compiles_and_fits(tmp_path):
    command = [sys.executable, "benchmarks/compile_tpu.py", "--tiny", "--chips", "v5e", "--tiles", "512"]
    # What the tests set for the compiler of CPUs is not meant for this one.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    path = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--meshes", "4,2,2", "--json", tmp_path / "facts.json"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "facts.json").read_text())["rows"]
    assert row["kernels"] > 0
    assert row["collectives"]["collective-permute"]["count"] > 0
