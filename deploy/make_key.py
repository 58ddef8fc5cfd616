"""``python -m deploy.make_key NAME [SCOPE…]``: a key of a deployment, from its shell.

Prints the secret, once. Without scopes the key may do everything.
"""

import argparse
import sys

from services.database.engine import Database
from services.errors import Invalid
from services.keys import SCOPES, Keys
from services.projects import DEFAULT
from services.settings import settings_or_exit


def main(arguments: list[str]) -> None:
    """Make a key and print its secret."""
    parser = argparse.ArgumentParser("python -m deploy.make_key")
    parser.add_argument("name", help="whose key it is")
    parser.add_argument("scopes", nargs="*", help=f"some of {', '.join(SCOPES)}")
    parser.add_argument("--project", default=DEFAULT, help="whose data it sees")
    given = parser.parse_args(arguments)
    database = Database(settings_or_exit().database_url)
    try:
        secret, _ = Keys(database).create(
            given.name, given.scopes or SCOPES, project=given.project
        )
    except Invalid as error:
        sys.exit(error.message)
    finally:
        database.close()
    sys.stdout.write(secret + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
