"""Benchmarks run; their numbers are for people."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_pipeline_quick(tmp_path):
    command = [
        sys.executable,
        "benchmarks/pipeline.py",
        "--quick",
        "--folder",
        tmp_path,
        "--json",
        tmp_path / "t",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "t").read_text())
    assert len(facts["tiles"]) == 4
    rows = {row["pipeline"]: row for row in facts["rows"]}
    assert {"records", "records, stored as float16"} <= set(rows)
    assert all(row["bags/s"] > 0 and len(row["MiB by epoch"]) == facts["epochs"] for row in rows.values())
    assert "| records | 2 |" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_attention_quick(tmp_path):
    command = [sys.executable, "benchmarks/attention.py", "--queries", "40", "--heads", "2", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--json", tmp_path / "t"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "t").read_text())["rows"]
    by_dtype = {row["dtype"]: row for row in rows if row["implementation"] == "xla"}
    assert by_dtype["float32"]["distance"] == 0.0
    assert 0.0 < by_dtype["bfloat16"]["distance"] < 2e-2
    assert all(row["with_gradients_s"] > 0 for row in rows)
    assert done.stdout.startswith("cpu")
    assert done.stdout.count("left out: attention 'pallas' runs on a TPU") == 1


def test_coverage_shows_a_share_of_each_kind():
    command = [sys.executable, "benchmarks/coverage.py", "--sets", "2", "--draws", "20"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(maxsplit=3) for line in done.stdout.splitlines()[1:]]
    assert [(name, num) for name, num, _, _ in rows] == [
        *(("Harrell's c", num) for num in ("100", "200", "400")),
        *(("balanced accuracy", num) for num in ("150", "400")),
    ]
    assert {share for row in rows for share in row[2:]} <= {"0.0%", "50.0%", "100.0%"}
