"""Every command under one name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modaltune_jax import __main__ as commands
from modaltune_jax import command

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_a_command_by_its_name(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["modaltune", name, "--help"])
    with pytest.raises(SystemExit) as end:
        commands.run()
    assert end.value.code == 0
    module = "main" if name == "train" else name
    assert f"modaltune_jax.{module}" in capsys.readouterr().out


def test_without_a_name_it_trains(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["modaltune", "--config=no_such_config.py"])
    with pytest.raises(SystemExit) as end:
        commands.run()
    assert end.value.code == 2
    assert "no_such_config.py" in capsys.readouterr().err


def test_a_reader_that_goes_away_stops_nothing(tmp_path):
    code = (
        "from modaltune_jax import command\nfor _ in range(500): command.say('x' * 1000)\nopen('done', 'x')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CODE": code}
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$CODE" | head -n 1'],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment,
    )
    assert done.stdout == "x" * 1000 + "\n"
    assert done.stderr == ""
    assert (tmp_path / "done").exists()


def test_letters_that_a_terminal_lacks_are_spelled(tmp_path):
    code = (
        "from modaltune_jax import command; command.run(lambda _: command.say('M\\xfcnchen'), interrupted='')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "M\\xfcnchen\n", "")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param(".report.json-cafbd7f5.partial", "out/report.json", id="temporary"),
        pytest.param("cases.partial", "out/cases", id="shard"),
        pytest.param("report.json", "out/report.json", id="its-own"),
    ],
)
def test_files_that_cannot_be_written_have_the_name_that_was_meant(monkeypatch, capsys, name, told):
    def write(_):
        raise PermissionError(13, "Permission denied", f"out/{name}")

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as end:
        command.run(write, interrupted="")
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {told}: Permission denied\n"
