"""Whose keys, datasets, jobs and models are.

Revision: 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = ("keys", "datasets", "jobs", "models")


def upgrade() -> None:
    for table in _TABLES:
        project = sa.Column(
            "project", sa.String(length=64), nullable=False, server_default="default"
        )
        op.add_column(table, project)


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "project")
