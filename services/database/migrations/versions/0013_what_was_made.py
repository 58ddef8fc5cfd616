"""What a request made, in the audit log.

Revision: 0013, after 0012. It only adds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("made", sa.String(length=500)))


def downgrade() -> None:
    op.drop_column("audit", "made")
