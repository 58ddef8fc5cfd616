"""A short run of the fault command."""

import json
import tempfile
from pathlib import Path

from deploy.chaos.run import Request, run


def test_a_short_run_of_two_faults_loses_nothing(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="spnode-") as compiled:
        request = Request(
            minutes=7 / 60,
            seed=1,
            on="local",
            folder=tmp_path / "run",
            command="./spnode chaos",
            compiled=Path(compiled),
            kinds=("kill worker", "wipe broker"),
            jobs=("dataset",),
            every_s=1.5,
            orphan_seconds=1.0,
        )
        told: list[str] = []
        report = run(request, told.append)
    assert report.findings == []
    assert {each["kind"] for each in report.faults} == {"kill worker", "wipe broker"}
    assert report.jobs["dataset succeeded"] >= 3
    page = report.write(tmp_path / "out")
    assert "\n0 findings.**" in page.read_text()
    stored = json.loads(page.with_suffix(".json").read_text())
    assert stored["seed"] == 1
    assert sum(stored["jobs"].values()) == sum(report.jobs.values())
