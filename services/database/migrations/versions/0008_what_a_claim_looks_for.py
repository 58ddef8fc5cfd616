"""What a claim looks for: a caller's last turn, and no job for its event.

Revision: 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_FOREIGN_KEY = "fk_events_job_id"
_WAITING = sa.text("state = 'queued'")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # Both at once and in the order of readers, so that none meets us half way.
        op.execute("LOCK TABLE jobs, events IN ACCESS EXCLUSIVE MODE")
    op.create_index(
        "ix_jobs_turn_of_owner",
        "jobs",
        ["owner", "queue", "rank", "turn"],
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )
    with op.batch_alter_table(
        "events", table_kwargs={"sqlite_autoincrement": True}
    ) as events:
        events.drop_constraint(_FOREIGN_KEY, type_="foreignkey")


def downgrade() -> None:
    with op.batch_alter_table(
        "events", table_kwargs={"sqlite_autoincrement": True}
    ) as events:
        events.create_foreign_key(
            _FOREIGN_KEY, "jobs", ["job_id"], ["id"], ondelete="CASCADE"
        )
    op.drop_index("ix_jobs_turn_of_owner", "jobs")
