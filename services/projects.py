"""Whose data a caller sees: datasets, jobs and models belong to a project.

A key is of one project. It sees what is there and nothing else: what is elsewhere is
not found, as if it did not exist. Administrators and the workers see every project.
"""

import re
from typing import NamedTuple

import sqlalchemy as sa

from services.errors import Invalid

DEFAULT = "default"
"""The project of whoever names none, and of all that was made before there were any."""
PROJECT_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""What a name of one looks like."""


class Access(NamedTuple):
    """What a caller may see, and where what it makes belongs.

    Args:
        project: Where it belongs.
        sees_all: Whether it sees the other projects too.
    """

    project: str = DEFAULT
    sees_all: bool = False

    def of(self, column: sa.Column[str]) -> sa.ColumnElement[bool]:
        """Whether a row is seen, by its column of the project."""
        return sa.true() if self.sees_all else column == self.project


EVERYTHING = Access(sees_all=True)


def check_project(name: str) -> str:
    """Return a name that a project may have.

    Raises:
        Invalid: It is none.
    """
    if not re.fullmatch(PROJECT_PATTERN, name):
        raise Invalid(
            "/project",
            found=repr(name[:80]),
            expected="1 to 64 of a-z, 0-9, '.', '_' and '-', first a letter or a digit",
        )
    return name
