"""Where a job waits: queue, rank, turn; until when it may, and rests.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    queue = sa.Column(
        "queue", sa.String(length=32), nullable=False, server_default="training"
    )
    op.add_column("jobs", queue)
    for name, kind in (("rank", sa.Integer()), ("turn", sa.BigInteger())):
        column = sa.Column(name, kind, nullable=False, server_default="0")
        op.add_column("jobs", column)
    for name in ("deadline", "not_before"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=True))
    jobs = sa.table("jobs", sa.column("kind"), sa.column("queue"))
    for kinds, name in (
        (("dataset",), "datasets"),
        (("rollout", "calibration", "evaluation", "sweep"), "rollout_jobs"),
    ):
        update = sa.update(jobs).where(jobs.c.kind.in_(kinds)).values(queue=name)
        op.execute(update)
    op.create_index("ix_jobs_place", "jobs", ["queue", "state", "rank", "turn", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_place", "jobs")
    for name in ("not_before", "deadline", "turn", "rank", "queue"):
        op.drop_column("jobs", name)
