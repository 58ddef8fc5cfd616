"""``python -m deploy``: the command line of the source tree."""

from deploy.cli import main

if __name__ == "__main__":
    main()
