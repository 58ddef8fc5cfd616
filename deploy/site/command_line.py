"""The reference of the command line, from the commands themselves."""

from collections.abc import Iterator
from typing import Any

import typer

from deploy.site.markdown import sentence, table


def page() -> str:
    """The reference as Markdown."""
    lines = [
        "# Command line",
        "`./spnode` in a source tree has all commands; `spnode` of the wheel those "
        "that ask a service. Results go to stdout, everything else to stderr; with "
        "`--json`, stdout is one JSON document. Exit codes: 0 done, 1 failed, "
        "2 wrong usage. `SPNODE_URL` and `SPNODE_KEY` say which service is asked and "
        "with which key; without them it is the stack that `./spnode up` started.",
    ]
    lines += _before()
    for words, command in commands():
        lines += _section(words, command)
    return "\n\n".join(lines) + "\n"


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with the words that call it, groups left out."""
    yield from _below(root(), ())


def root() -> Any:
    """The program itself, whose options stand before the command."""
    from deploy.cli import make_tree_app

    return typer.main.get_command(make_tree_app())


def _below(
    command: Any, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, each in getattr(command, "commands", {}).items():
        if getattr(each, "commands", None):
            yield from _below(each, (*words, name))
        else:
            yield (*words, name), each


def _before() -> Iterator[str]:
    yield "## Options of the program"
    yield (
        "They stand before the command. With `--install-completion` the Tab key "
        "completes commands and options from the next start of the shell on."
    )
    yield "```sh\nspnode --url https://spnode.example --key spn_… models list\n```"
    yield from _options(root())


def _section(words: tuple[str, ...], command: Any) -> Iterator[str]:
    yield f"## `{' '.join(words)}`"
    text, *examples = (command.help or "").split("Example: ")
    yield from (sentence(each) for each in text.split("\n\n") if each.strip())
    if examples:
        yield "\n".join(["```sh", *map(sentence, examples), "```"])
    yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    rows = [
        (_names(each), _kind(each, command), sentence(getattr(each, "help", "") or ""))
        for each in command.params
        if each.name != "help"
    ]
    if rows:
        yield table(("what is given", "type", "meaning"), rows)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        needed = "" if parameter.required else ", optional"
        return f"`{parameter.name.upper()}`{needed}"
    names = [*parameter.opts, *parameter.secondary_opts]
    return ", ".join(f"`{each}`" for each in names)


def _kind(parameter: Any, command: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "flag"
    # Its angle brackets would be a tag of HTML.
    kind = parameter.display_type(typer.Context(command)).strip("<>")
    default = parameter.default
    if default in (None, "", []) or callable(default):
        return kind
    return f"{kind}, default `{default}`"
