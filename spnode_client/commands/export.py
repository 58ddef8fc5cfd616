"""``export``: a version as a file, or its rollout as StableHLO in a folder."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from spnode_client.client import Client
from spnode_client.commands.inputs import parse_times
from spnode_client.commands.models import Reference
from spnode_client.connection import connection
from spnode_client.errors import ClientError
from spnode_client.terminal import Json, UsageError, emit, out
from spnode_client.transfer import downloading


def export(
    reference: Reference,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "--out", "--to", "-o", help="Name of the file or folder."
        ),
    ] = None,
    stablehlo: Annotated[
        bool,
        typer.Option(
            "--stablehlo",
            help="Write the rollout to a folder, for C++, Julia, or Python without "
            "this library; needs spnode[jax].",
        ),
    ] = False,
    times: Annotated[
        str | None,
        typer.Option(
            help="Output times: 0.1,1,10 or log:1e-5:1e5:50 or linear:0:10:101; the "
            "model's own by default."
        ),
    ] = None,
    control_times: Annotated[
        str | None, typer.Option(help="When controls switch, from 0: 0,0.5,1.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Numbers of rows to write modules for; 1,32 by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a version's artifact to a file that ``spnode_core.load`` reads.

    With --stablehlo, write its rollout to a folder that any host of StableHLO runs.

    Example: spnode export robertson@champion --output robertson.spnode

    Example: spnode export robertson --stablehlo --times log:1e-5:1e5:50 --to exported
    """
    client = connection.client()
    if stablehlo:
        made = _exported(client, reference, output, times, control_times, rows)
        emit(made, as_json, lambda: _tell(made))
        return
    if times or control_times or rows:
        raise UsageError("--times, --control-times and --rows are for --stablehlo")
    version = client.models.version(reference)
    path = output or Path(f"{version.model}-{version.number}.spnode")
    with downloading(client, str(version), as_json):
        client.models.download(str(version), path)
    saved = {"path": os.fspath(path), "digest": version.digest}
    said = f"{path}  {version.digest}"
    emit(saved, as_json, lambda: out.print(said, markup=False))


def _exported(
    client: Client,
    reference: str,
    output: Path | None,
    times: str | None,
    control_times: str | None,
    rows: str | None,
) -> dict[str, Any]:
    # Read when JAX is imported, which is not before here: this is an entry point.
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    counts = None if rows is None else _counts(rows)
    chosen = None if times is None else parse_times(times)
    switches = (
        None if control_times is None else parse_times(control_times, "--control-times")
    )
    version = client.models.version(reference)
    folder = output or Path(f"{version.model}-{version.number}-stablehlo")
    try:
        made = client.models.export(
            str(version), folder, chosen, control_times=switches, rows=counts
        )
    except ImportError as error:
        raise ClientError(
            f"--stablehlo computes on this machine: {error}; pip install 'spnode[jax]'"
        ) from error
    return {"path": os.fspath(folder), **made}


def _counts(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",") if each.strip()]
    except ValueError as error:
        raise UsageError(
            f"--rows: found {text!r}; expected numbers such as 1,32"
        ) from error


def _tell(made: dict[str, Any]) -> None:
    out.print(made["path"], markup=False)
    for name, digest in sorted(made["sha256"].items()):
        out.print(f"  {name}  {digest}", markup=False)
    if made["custom_calls"]:
        calls = ", ".join(made["custom_calls"])
        out.print(f"only JAX runs it: the model calls {calls}", markup=False)
