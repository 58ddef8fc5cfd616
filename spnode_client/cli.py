"""``spnode``: the client's command line; the source tree's adds the stack to it.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import inspect
import sys
import warnings
from typing import Annotated

import typer
from rich.markup import escape

from spnode_client.commands import datasets, jobs, keys, models
from spnode_client.commands.aliases import history, unalias
from spnode_client.commands.calibrate import calibrate
from spnode_client.commands.compare import compare
from spnode_client.commands.export import export
from spnode_client.commands.rollout import rollout
from spnode_client.commands.rollout_jobs import queue_rollout
from spnode_client.commands.sweep import sweep
from spnode_client.commands.train import train
from spnode_client.connection import connection
from spnode_client.deadlines import LONGEST_S
from spnode_client.errors import ClientError
from spnode_client.terminal import UsageError, err, report

COMPLETE = "_SPNODE_COMPLETE"
"""By this variable a shell asks for completions; ``./`` has no place in its name."""
_INTERRUPTED = 130
"""What typer makes of Ctrl-C, without a word."""


def make_app() -> typer.Typer:
    """The client's commands."""
    app = typer.Typer(
        name="spnode",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Fast, differentiable, provably stable surrogates of stiff systems.",
    )
    app.callback()(choose_service)
    app.command()(train)
    app.command()(sweep)
    app.command()(rollout)
    app.command()(calibrate)
    jobs.app.command("rollout")(queue_rollout)
    app.add_typer(jobs.app, name="jobs")
    models.app.command()(history)
    models.app.command()(unalias)
    models.app.command()(compare)
    models.app.command()(export)
    app.add_typer(models.app, name="models")
    app.add_typer(datasets.app, name="datasets")
    app.add_typer(keys.app, name="keys")
    app.command()(export)
    return app


def choose_service(
    url: Annotated[
        str | None, typer.Option(help="Address of the service (or SPNODE_URL).")
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key (or SPNODE_KEY).")] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that an answer may take to begin, each try.")
    ] = 60.0,
) -> None:
    """Fast, differentiable, provably stable surrogates of stiff systems."""
    connection.url = url
    connection.key = key
    if not 0 < timeout <= LONGEST_S:
        raise UsageError(
            f"--timeout: found {timeout:g}; expected seconds, above 0 and at most "
            f"{LONGEST_S:g}"
        )
    connection.timeout_s = timeout


def run(app: typer.Typer, name: str) -> None:
    """Run a command line called ``name``; errors become a sentence and an exit code."""
    warnings.showwarning = _say_warning
    connection.program = name
    connection.says = _say_waiting
    _call_in_examples(app, name)
    # The scripts are for the bare name, which shells look up for any path to it too.
    scripts = {"--install-completion", "--show-completion"}
    called = "spnode" if scripts & set(sys.argv) else name
    try:
        app(prog_name=called, complete_var=COMPLETE)
    except UsageError as error:
        report(error)
        sys.exit(2)
    except (ClientError, OSError, ValueError, TimeoutError) as error:
        report(error)
        sys.exit(1)
    except KeyboardInterrupt:
        _end_interrupted()
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        _end_interrupted()


def _end_interrupted() -> None:
    # On a terminal ^C stands in the line.
    err.print("\nstopped" if err.is_terminal else "stopped")
    sys.exit(1)


def _call_in_examples(app: typer.Typer, name: str) -> None:
    """Have the examples of all commands call the program by its name, to be pasted."""
    for each in app.registered_commands:
        text = each.help or inspect.getdoc(each.callback) or ""
        each.help = text.replace("Example: spnode ", f"Example: {name} ")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _call_in_examples(group.typer_instance, name)


def main() -> None:
    """The entry point of the wheel."""
    run(make_app(), "spnode")


def _say_waiting(url: str) -> None:
    err.print(f"waiting for an answer from {url} …", markup=False)


def _say_warning(message: object, *_: object, **__: object) -> None:
    # Names of her file are in it, and a bracket in one is no markup.
    err.print(f"[yellow]warning:[/] {escape(str(message))}", markup=True)
