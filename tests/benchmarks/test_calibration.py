"""The calibration benchmark in small: it runs and writes its page."""

import json
import sys

from benchmarks.calibration import __main__ as benchmark


def test_a_small_version_writes_its_page(tmp_path, monkeypatch, capsys):
    small = benchmark.TRAINING.model_copy(update={"iterations": 2})
    monkeypatch.setattr(benchmark, "TRAJECTORIES", 20)
    monkeypatch.setattr(benchmark, "TRAINING", small)
    command = ["calibration", "--cases", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    benchmark.main()
    assert "of 2 cases" in capsys.readouterr().out
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert len(stored["cases"]) == 2
    assert {"commit", "command", "seed", "machine"} <= set(stored)
    page = (tmp_path / "calibration.md").read_text()
    assert "≥ 2 of 2" in page
    assert "| k3 |" in page
