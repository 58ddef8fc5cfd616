"""Which key took the place of another, in the keys.

Revision: 0014, after 0013. It only adds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("replaced_by", sa.String(length=32)))


def downgrade() -> None:
    op.drop_column("keys", "replaced_by")
