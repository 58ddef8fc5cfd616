"""``spnode`` and ``python -m spnode_client``: the command line, where installed."""

import sys

_NEEDED = frozenset({"typer", "rich", "click"})


def main() -> None:
    """Run the command line; without its packages, say which extra has them."""
    try:
        from spnode_client.cli import main as run
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        sys.exit(
            f"the command line needs the package {error.name}, which the extra `cli` "
            "has: install spnode[cli]"
        )
    run()


if __name__ == "__main__":
    main()
