"""A short script with NumPy, SciPy and pandas alone draws every recorded verdict again."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

from checkouts import ROOT

SCRIPT = ROOT / "tests" / "recompute.py"


def recompute(root: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True)


def test_every_recorded_verdict_comes_out_again():
    done = recompute(ROOT)
    verdicts, _, differ = done.stdout.partition(" verdicts recomputed, ")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(verdicts) > 20 and differ == "0 differ\n"


def test_the_script_is_short_and_stands_alone():
    code = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(code) for name in getattr(node, "names", [])}
    assert imported == {"json", "sys", "Path", "numpy", "pandas", "stats"}
    lines = {node.lineno for node in ast.walk(code) if isinstance(node, ast.stmt)}
    assert len(lines) <= 40


def test_a_changed_verdict_is_found(tmp_path):
    for part in ("data/recorded", "figures"):
        shutil.copytree(
            ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.png", "*.svg")
        )
    file = tmp_path / "figures" / "02_epsilon_study.json"
    page = json.loads(file.read_text(encoding="utf-8"))
    changed = next(j for rows in page["judgements"].values() for j in rows if j["reason"] == "")
    changed["verdict"] = "opposite" if changed["verdict"] != "opposite" else "supported"
    file.write_text(json.dumps(page), encoding="utf-8")
    done = recompute(tmp_path)
    assert done.returncode == 1 and "1 differ" in done.stdout
