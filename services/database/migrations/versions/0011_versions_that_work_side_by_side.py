"""Which is the oldest schema whose code works with this one.

Revision: 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "compatibility",
        sa.Column("since", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("since", name="pk_compatibility"),
    )
    op.bulk_insert(table, [{"since": "0011"}])


def downgrade() -> None:
    op.drop_table("compatibility")
