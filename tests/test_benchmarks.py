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
