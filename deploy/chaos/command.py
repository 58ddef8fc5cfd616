"""``chaos`` as a command: what was typed, as a run, and what was found."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.markup import escape

from deploy.chaos.report import Report
from deploy.chaos.run import PLACES, Request, run
from deploy.folder import ROOT, find_folder
from spnode_client.terminal import UsageError, emit, err, out


def run_chaos(
    minutes: float,
    seed: int,
    on: str,
    out_folder: Path | None,
    work_folder: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Run, write the report, say what was found.

    Args:
        minutes: How long faults happen.
        seed: Of faults and workload.
        on: ``local`` or ``network``.
        out_folder: Where the report goes; ``docs/results`` by default.
        work_folder: An empty folder for everything that runs; a new one by default.
        as_json: Print the report as JSON.

    Returns:
        Whether nothing was lost, doubled or wrong.

    Raises:
        UsageError: No such deployment, no time, or a folder that is not empty.
    """
    if on not in PLACES:
        raise UsageError(f"--on {on!r}: expected one of {', '.join(PLACES)}")
    if minutes <= 0:
        raise UsageError(f"--minutes {minutes:g}: expected more than 0")
    folder = work_folder or Path(tempfile.mkdtemp(prefix="spnode-chaos-"))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--work {folder}: expected a new or an empty folder")
    command = f"./spnode chaos --minutes {minutes:g} --seed {seed} --on {on}"
    compiled = find_folder().path / "chaos-compiled"
    request = Request(minutes, seed, on, folder.absolute(), command, compiled)
    report = run(request, lambda line: err.print(line, markup=False))
    if report.is_good and work_folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    page = report.write(out_folder or ROOT / "docs" / "results")
    emit(_short(report), as_json, lambda: _tell(report, page))
    return report.is_good


def _short(report: Report) -> dict[str, Any]:
    return {
        "seed": report.seed,
        "faults": len(report.faults),
        "jobs": report.jobs,
        "callers": report.callers,
        "findings": report.findings,
    }


def _tell(report: Report, page: Path) -> None:
    jobs = sum(report.jobs.values())
    out.print(f"{len(report.faults)} faults, {jobs} jobs", highlight=False)
    for each in report.findings:
        out.print(f"[red]{escape(each['what'])}[/]")
        out.print(f"  {each}", markup=False, highlight=False)
    out.print(f"{len(report.findings)} findings; report: {page}", markup=False)
