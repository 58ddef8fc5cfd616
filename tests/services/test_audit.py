import pytest
import sqlalchemy as sa

from services.audit import Audit
from services.database import tables


@pytest.fixture
def audit(any_database, clock) -> Audit:
    return Audit(any_database, clock=clock)


def test_what_was_done_is_told_newest_first_page_by_page(audit: Audit, clock) -> None:
    for number in range(5):
        who = "key:a" if number % 2 else "key:b"
        audit.note(who, "POST", f"/v1/jobs/{number}", 202, f"req_{number}")
        clock.advance(number // 2)  # some at the same moment
    first = audit.list(limit=2)
    rest = audit.list(limit=3, after=first.next)
    assert [act.path[-1] for act in (*first.items, *rest.items)] == list("43210")
    assert rest.next is None
    (act, _) = audit.list(caller="key:a").items
    assert (act.caller, act.method, act.status) == ("key:a", "POST", 202)
    assert act.request_id == "req_3"


def test_a_path_of_any_length_is_noted(audit: Audit) -> None:
    path = "/v1/" + "x" * 5000
    audit.note("key:a", "POST", path, 201, "req", path)
    (act,) = audit.list().items
    assert act.path == act.made == path[:500]


def test_what_was_made_is_noted(audit: Audit) -> None:
    audit.note("key:a", "POST", "/v1/keys", 201, "req_1", "/v1/keys/k")
    audit.note("key:a", "DELETE", "/v1/keys/k", 200, "req_2")
    assert {act.made for act in audit.list().items} == {None, "/v1/keys/k"}


@pytest.mark.parametrize("change", ["change", "delete", "empty"])
def test_nobody_changes_or_deletes_a_row(audit: Audit, change: str) -> None:
    audit.note("key:a", "DELETE", "/v1/datasets/d", 204, "req_1")
    table = tables.audit
    statement: sa.Executable = {
        "change": sa.update(table).values(caller="key:b"),
        "delete": sa.delete(table).where(table.c.caller == "key:a"),
        # SQLite knows no TRUNCATE.
        "empty": sa.delete(table)
        if audit.database.is_sqlite
        else sa.text("TRUNCATE audit"),
    }[change]
    with (
        pytest.raises(sa.exc.DBAPIError, match="neither changed nor deleted"),
        audit.database.transaction() as connection,
    ):
        connection.execute(statement)
    assert [act.caller for act in audit.list().items] == ["key:a"]
