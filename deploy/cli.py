"""``./spnode``: the client's commands and those that need the source tree."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from deploy import measuring, registry
from deploy.folder import ROOT, Folder, find_folder
from deploy.guarded import guarded
from spnode_client.cli import make_app, run
from spnode_client.connection import connection
from spnode_client.terminal import Json, UsageError, emit, err, out, print_table

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
# A test waits for servers, or compiles on one core, and takes some gigabytes.
IN_TWO_PROCESSES = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
_PYTEST_USAGE = 4
"""pytest's exit code where it was called wrongly."""


def up(as_json: Json = False) -> None:
    """Start gateway, worker and broker on this machine, or say what runs already.

    Example: ./spnode up
    """
    from deploy import stack
    from deploy.given import differing

    folder = find_folder()
    started = guarded(lambda: stack.up(folder, _say))
    found = stack.status(folder)
    emit({"started": started, **found.as_dict()}, as_json, lambda: _describe(folder))
    if not started and not as_json:
        err.print("it ran already; `./spnode down` stops it")
        if names := differing(folder):
            said = "not applied until `./spnode down` and `./spnode up`"
            err.print(f"{said}: {', '.join(names)}", markup=False)


def down(as_json: Json = False) -> None:
    """Stop the stack; a running training leaves a checkpoint and goes on after `up`.

    Example: ./spnode down
    """
    from deploy import stack

    stopped = guarded(lambda: stack.down(find_folder()))
    text = "stopped" if stopped else "nothing was running"
    emit({"stopped": stopped}, as_json, lambda: out.print(text))


def status(as_json: Json = False) -> None:
    """Say what runs: processes, restarts and their reasons, queues, jobs.

    Example: ./spnode status
    """
    from deploy import stack

    found = stack.status(find_folder())
    emit(found.as_dict(), as_json, lambda: _describe(find_folder()))
    if not found.running:
        raise typer.Exit(1)


def doctor(as_json: Json = False) -> None:
    """Look for what is missing on this machine and say how to mend it.

    Example: ./spnode doctor
    """
    from deploy.doctor import Finding, examine

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    found: list[Finding] = []
    for finding in examine(find_folder()):
        found.append(finding)
        if as_json:
            continue
        colour = colours[finding.level]
        level = f"[{colour}]{finding.level:<4}[/]"
        out.print(level, f"{finding.name:<12}", escape(finding.found))
        if finding.remedy:
            out.print(f"     {'':<12} -> {finding.remedy}", markup=False)
    emit([finding.__dict__ for finding in found], as_json, lambda: None)
    if any(finding.level == "fail" for finding in found):
        raise typer.Exit(1)


def backup(
    folder: Annotated[
        Path,
        typer.Argument(help="New, or of an earlier backup: it is brought up to date."),
    ],
    as_json: Json = False,
) -> None:
    """Copy database and store while everything runs; the copy is a data folder.

    For SQLite; docs/backup.md says what to do with PostgreSQL and S3. Exit code 1: the
    store lacks a content that the database names, or one to be copied is damaged.

    Example: ./spnode backup /mnt/spnode
    """
    from deploy.opened import opened
    from services.backup import back_up

    with opened() as (database, blobs):
        found = back_up(database, blobs, folder)
    for key in found.missing:
        err.print(f"missing: {key}", markup=False)
    for key in found.damaged:
        err.print(f"damaged: {key}", markup=False)
    said = f"{folder}: {found.contents} contents copied, {found.size_bytes} bytes"
    emit(found.as_dict(), as_json, lambda: out.print(said, markup=False))
    if found.missing or found.damaged:
        raise typer.Exit(1)


def demo(
    end: Annotated[
        bool, typer.Option("--exit", help="Stop the stack at the end.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            help="Where the picture goes; ./demo.png by default.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the data and of training.")] = 0,
    as_json: Json = False,
) -> None:
    """Train, register, roll out and check a stiff surrogate, all through the API.

    Example: ./spnode demo --exit
    """
    from deploy.demo import run_demo, tell

    result = guarded(lambda: run_demo(find_folder(), output, seed, end))
    emit(result.as_dict(), as_json, lambda: tell(result, is_up=not end))
    if not result.is_good:
        raise typer.Exit(1)


def test(context: typer.Context) -> None:
    """Run the tests; what follows goes to pytest, `--all` adds the slow ones.

    All tests run in two processes, file by file; a choice of them in one.

    Example: ./spnode test tests/core -k etd
    """
    arguments = list(context.args)
    if set(arguments) <= {"--all"}:
        arguments += IN_TWO_PROCESSES
    if "--all" in arguments:
        arguments.remove("--all")
    elif not any(argument.startswith("-m") for argument in arguments):
        arguments = ["-m", "not slow", *arguments]
    # pytest has codes of its own for runs that were interrupted or found no tests.
    raise SystemExit({0: 0, _PYTEST_USAGE: 2}.get(_pytest(arguments), 1))


def check(as_json: Json = False) -> None:
    """Check lint, format, types, import arrows, names, lengths and documentation.

    Example: ./spnode check
    """
    from deploy.check import run_checks

    failed = run_checks(quiet=as_json)
    emit({"failed": failed}, as_json, lambda: None)
    if failed:
        raise typer.Exit(1)


def docs(
    out_folder: Annotated[
        Path, typer.Argument(help="Folder of the pages; build/docs by default.")
    ] = ROOT / "build" / "docs",
    as_json: Json = False,
) -> None:
    """Build the site of the documentation: open index.html, no server is needed.

    Example: ./spnode docs /tmp/site
    """
    from deploy.site.build import build

    guarded(lambda: build(out_folder))
    first = out_folder.resolve() / "index.html"
    emit({"index": str(first)}, as_json, lambda: out.print(str(first), markup=False))


def sbom(
    output: Annotated[Path, typer.Argument(help="Where the bill goes.")] = ROOT
    / "build"
    / "sbom.json",
    image: Annotated[
        str | None, typer.Option(help="Of an image alone: gateway, or worker on a CPU.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the bill of materials of the environment: packages and their licences.

    Example: ./spnode sbom sbom.json --image gateway
    """
    from deploy.sbom import IMAGES, write_bill

    if image is not None and image not in IMAGES:
        raise UsageError(f"--image: found {image!r}; expected {' or '.join(IMAGES)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    found = guarded(lambda: write_bill(output, image))
    emit(vars(found), as_json, lambda: _bill(found))


def _bill(found: Any) -> None:
    print_table(("licence", "packages"), list(found.licences.items()))
    if found.unknown:
        out.print(f"say none: {', '.join(found.unknown)}", markup=False)
    out.print(f"{found.components} packages: {found.file}", markup=False)


def make_tree_app() -> typer.Typer:
    """The commands of a source tree: the client's and those above."""
    app = make_app()
    for command in (
        up,
        down,
        status,
        backup,
        doctor,
        demo,
        *measuring.COMMANDS,
        check,
        docs,
        sbom,
    ):
        app.command()(command)
    app.command(context_settings=PASS_THROUGH)(test)
    app.add_typer(registry.app, name="registry")
    return app


def main() -> None:
    """The entry point of ``./spnode``."""
    connection.embedded = _embedded
    run(make_tree_app(), "./spnode")


def _embedded() -> tuple[str, str | None] | None:
    from deploy import stack

    return stack.address(find_folder())


def _pytest(arguments: list[str]) -> int:
    """Run pytest from the root, where its configuration is."""
    here = Path.cwd()
    if here != ROOT:
        arguments = [
            str(here / argument) if (here / argument).exists() else argument
            for argument in arguments
        ]
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _say(text: str) -> None:
    err.print(text, markup=False)


def _describe(folder: Folder) -> None:
    from deploy import stack

    found = stack.status(folder)
    if not found.running:
        said = f"nothing runs from {found.data_folder}; `./spnode up` starts it"
        out.print(said, markup=False)
        return
    out.print(f"[bold]{escape(found.url)}[/]")
    # The browser keeps what follows # to itself. Where nobody looks on, as in a log of
    # CI, the key is not told.
    key = f"#key={folder.read_key()}" if out.is_terminal and folder.read_key() else ""
    out.print(f"page  {found.url}/{key}", soft_wrap=True, markup=False)
    places = f"key   {folder.key}\ndata  {found.data_folder}\nlogs  {folder.logs}\n"
    out.print(places, markup=False)
    rows = [
        (
            each.name,
            each.state,
            each.pid or "",
            f"{each.uptime_s} s",
            f"{len(each.restarts)}, last {each.restarts[-1]}" if each.restarts else 0,
        )
        for each in found.processes
    ]
    print_table(("process", "state", "pid", "up", "restarts"), rows)
    queues = ", ".join(
        f"{name} {'?' if length is None else length}"
        for name, length in found.queues.items()
    )
    out.print(f"\nqueues: {queues}", markup=False)
    for state, ids in found.jobs.items():
        if ids:
            out.print(f"jobs {state}: {', '.join(ids)}")
