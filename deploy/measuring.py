"""The commands that measure: figures of the paper, speed, faults, an hour of load."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.folder import ROOT, find_folder
from deploy.guarded import guarded
from spnode_client.terminal import Json, emit, err, out

ReportFolder = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the report; docs/results by default."),
]


def reproduce(
    example: Annotated[
        str, typer.Argument(help="transient-growth, robertson, … or all.")
    ] = "all",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small versions, about a minute.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0,1,2",
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; docs/results by default."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure stored rows anew.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Take stored rows of other commits too.")
    ] = False,
    only: Annotated[
        str, typer.Option(help="Measure only rows whose name contains this.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Repeat the paper's examples beside our defaults; write tables and figures.

    Each row is stored as soon as it is done: stop with Ctrl-C, start again to go on.
    Exit code 0: every bar reached; 1: one was not; 2: wrong usage.

    Example: ./spnode reproduce robertson --seeds 0 --out /tmp/results
    """
    from deploy.reproduce import run_examples

    run_examples(
        example,
        seeds,
        out_folder,
        as_json=as_json,
        quick=quick,
        again=again,
        keep=keep,
        only=only,
    )


def bench(
    group: Annotated[str, typer.Argument(help="rollout, … or all.")] = "all",
    peers: Annotated[
        bool, typer.Option("--peers", help="Install and measure other software too.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small version, untrained.")
    ] = False,
    only: Annotated[
        str, typer.Option(help="Measure only figures whose name contains this.")
    ] = "",
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; docs/results/speed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast it is, in turns with peers and limits; write the pages.

    The first run trains the model that is measured, some minutes. Exit code 0: every
    bar reached; 1: one was not; 2: wrong usage.

    Example: ./spnode bench rollout --peers
    """
    from deploy.bench import run_groups

    run_groups(group, out_folder, only=only, as_json=as_json, peers=peers, quick=quick)


def chaos(
    minutes: Annotated[
        float, typer.Option(help="How long faults happen.", min=0.0)
    ] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of faults and workload.")] = 0,
    on: Annotated[str, typer.Option(help="local, or network.")] = "local",
    out_folder: ReportFolder = None,
    work_folder: Annotated[
        Path | None,
        typer.Option("--work", help="Empty folder of what runs; a new one by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hurt a deployment of its own at random moments and look what was lost.

    Exit code 0: nothing was lost, doubled or wrong; 1: something was; 2: wrong usage.

    Example: ./spnode chaos --minutes 2 --seed 1 --out /tmp/chaos
    """
    from deploy.chaos.command import run_chaos

    is_good = guarded(
        lambda: run_chaos(minutes, seed, on, out_folder, work_folder, as_json=as_json)
    )
    if not is_good:
        raise typer.Exit(1)


def soak(
    minutes: Annotated[
        float, typer.Option(help="How long the load goes on.", min=1.0)
    ] = 60.0,
    out_folder: ReportFolder = None,
    as_json: Json = False,
) -> None:
    """Load a deployment of its own to a half and see whether anything grows.

    Exit code 0: neither memory, handles, threads nor latency grew; 1: one did.

    Example: ./spnode soak --minutes 5 --out /tmp/soak
    """
    from benchmarks.speed.soak import run

    command = f"./spnode soak --minutes {minutes:g}"
    folder = find_folder().path / "bench"
    found = run(minutes, command, folder, lambda line: err.print(line, markup=False))
    page = found.write(out_folder or ROOT / "docs" / "results")
    findings = found.findings()
    said = "\n".join([*findings, f"{len(findings)} findings; report: {page}"])
    value = {"minutes": minutes, "findings": findings, "page": str(page)}
    emit(value, as_json, lambda: out.print(said, markup=False))
    if findings:
        raise typer.Exit(1)


COMMANDS = (reproduce, bench, chaos, soak)
