"""What Alembic runs: the migrations, on the caller's connection and transaction."""

from typing import Any, Literal

from alembic import context

from services.database.tables import Instant, metadata


def _render(kind: str, item: Any, _: Any) -> str | Literal[False]:
    # A migration must not change with the code: an instant is what it is in SQL.
    return "sa.BigInteger()" if isinstance(item, Instant) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=_render,
    render_as_batch=True,
)
context.run_migrations()
