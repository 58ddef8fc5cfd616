"""``python -m deploy.make_key NAME [SCOPE…]``: a key of a deployment, from its shell.

Prints the secret, once. Without scopes the key may do everything.
"""

import sys

from services.database.engine import Database
from services.keys import SCOPES, Keys
from services.settings import get_settings


def main(arguments: list[str]) -> None:
    """Make a key and print its secret."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit(f"usage: python -m deploy.make_key NAME [{' | '.join(SCOPES)}]…")
    name, *scopes = arguments
    database = Database(get_settings().database_url)
    try:
        secret, _ = Keys(database).create(name, scopes or SCOPES)
    finally:
        database.close()
    sys.stdout.write(secret + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
