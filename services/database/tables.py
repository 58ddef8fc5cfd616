"""Every table, in SQLAlchemy Core; the migrations produce exactly these.

Instants are integers, microseconds since 1970 UTC, so that they sort and compare alike
on every database; records carry them as aware ``datetime``.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware ``datetime`` kept as integer microseconds since 1970."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        """Return the microseconds of an instant."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        """Return the instant of some microseconds."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def instant(seconds: float) -> datetime:
    """Return the instant that is ``seconds`` after 1970, to the microsecond."""
    return _EPOCH + timedelta(microseconds=round(seconds * 1e6))


metadata = sa.MetaData(naming_convention=NAMING)
# SQLite counts by itself only in a column declared INTEGER.
Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _project() -> sa.Column[str]:
    """Whose a row is: see ``services.projects``."""
    return sa.Column("project", sa.String(64), nullable=False, server_default="default")


keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    _project(),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("last_used_at", Instant),
    sa.Column("replaced_by", sa.String(32)),
)

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    _project(),
    sa.Column("name", sa.String(200)),
    sa.Column("digest", sa.String(64), nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("summary", sa.JSON, nullable=False),
    sa.Column("job_id", sa.String(64), unique=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Index(None, "created_at", "id"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    _project(),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("dataset_id", sa.ForeignKey("datasets.id", ondelete="SET NULL")),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("lease_owner", sa.String(200)),
    sa.Column("lease_until", Instant),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("checkpoint", sa.String(64)),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("request_hash", sa.String(64)),
    sa.Column("sent_at", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant),
    # When the result in the store, and what the caller sent for it, were deleted.
    sa.Column("dropped_at", Instant),
    # The sweep that a training is a candidate of.
    sa.Column("parent_id", sa.String(64), index=True),
    # Its place among those that wait: see services.schedule.
    sa.Column("queue", sa.String(32), nullable=False, server_default="training"),
    # The smallest comes first: a priority with the other sign, which an index can sort.
    sa.Column("rank", sa.Integer, nullable=False, server_default="0"),
    sa.Column("turn", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("deadline", Instant),
    # When it was queued again; until then, since it was created.
    sa.Column("queued_at", Instant),
    # Until when it rests after it was put off.
    sa.Column("not_before", Instant),
    # Of the request that queued it.
    sa.Column("traceparent", sa.String(55)),
    sa.UniqueConstraint("owner", "idempotency_key"),
    sa.CheckConstraint(
        "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
        name="state",
    ),
    sa.CheckConstraint(
        "(state = 'running') = (lease_until IS NOT NULL)", name="leased_while_running"
    ),
    sa.Index(None, "created_at", "id"),
    sa.Index(None, "state", "lease_until"),
    sa.Index("ix_jobs_place", "queue", "state", "rank", "turn", "id"),
    # The last turn of a caller among those that wait.
    sa.Index(
        "ix_jobs_turn_of_owner",
        "owner",
        "queue",
        "rank",
        "turn",
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    ),
    sa.Index(None, "dataset_id", "state"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", Counter, primary_key=True, autoincrement=True),
    # Of a job whose row the same transaction has written, and which nobody deletes: to
    # look for it again took an eighth of a claim's time.
    sa.Column("job_id", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", sa.JSON(none_as_null=True)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Index(None, "job_id", "id"),
    sqlite_autoincrement=True,
)

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("outside", sa.BigInteger, nullable=False),
)

# What an upload or a retry made, by the key that the caller gave; jobs keep the keys
# of their submissions themselves.
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("owner", sa.String(200), primary_key=True),
    sa.Column("idempotency_key", sa.String(255), primary_key=True),
    sa.Column("request_hash", sa.String(64), nullable=False),
    sa.Column("made_id", sa.String(64), nullable=False),
    sa.Column("created_at", Instant, nullable=False, index=True),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    _project(),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("last_number", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Index(None, "created_at", "name"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("model", sa.ForeignKey("models.name"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.JSON, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("card", sa.JSON, nullable=False),
    sa.Column("evaluation", sa.JSON, nullable=False),
    sa.Column("certificate", sa.JSON, nullable=False),
    # One job publishes one version, whatever is killed when.
    sa.Column("job_id", sa.String(64), unique=True),
    sa.Column("created_at", Instant, nullable=False),
)

aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("model", sa.ForeignKey("models.name"), primary_key=True),
    sa.Column("alias", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

alias_moves = sa.Table(
    "alias_moves",
    metadata,
    sa.Column("id", Counter, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("alias", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer),
    sa.Column("previous", sa.Integer),
    sa.Column("moved_by", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("moved_at", Instant, nullable=False),
    sa.Index(None, "model", "alias", "id"),
    sqlite_autoincrement=True,
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", Counter, primary_key=True, autoincrement=True),
    sa.Column("caller", sa.String(200), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("path", sa.String(500), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("made", sa.String(500)),
    sa.Index(None, "created_at", "id"),
    sqlite_autoincrement=True,
)

# One row: the oldest revision whose code works with this schema. A migration that takes
# away what that needs sets it; one that only adds leaves it as it is.
compatibility = sa.Table(
    "compatibility",
    metadata,
    sa.Column("since", sa.String(32), primary_key=True),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("queues", sa.JSON, nullable=False),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
    # Whether what it keeps ready is compiled.
    sa.Column("is_warm", sa.Boolean, nullable=False, server_default=sa.true()),
)
