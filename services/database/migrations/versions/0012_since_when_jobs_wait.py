"""Since when a job waits, and which workers have compiled what they keep ready.

Revision: 0012, after 0011. It only adds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("queued_at", sa.BigInteger()))
    warm = sa.Column("is_warm", sa.Boolean(), nullable=False, server_default=sa.true())
    op.add_column("workers", warm)


def downgrade() -> None:
    op.drop_column("workers", "is_warm")
    op.drop_column("jobs", "queued_at")
