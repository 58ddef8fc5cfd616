"""Log records: their form, what they belong to, and what is never in them."""

import json
import logging
import sys

import pytest

from services import logs
from services.keys import Keys


def record(message: str, *args: object, error: Exception | None = None):
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(
        "spnode.test", logging.WARNING, "file.py", 1, message, args, exc_info
    )


def test_a_line_names_the_job_unless_its_message_does() -> None:
    lines = logs.Lines()
    assert lines.format(record("a %s", "b")).endswith("WARNING spnode.test a b")
    with logs.of_job("job_01"):
        assert lines.format(record("it ends")).endswith("it ends [job_01]")
        assert lines.format(record("job_01 ends")).endswith("job_01 ends")
    assert "job_01" not in lines.format(record("it ends"))


def test_a_text_of_others_is_no_record_of_its_own() -> None:
    forged = "/x\n2026-11-29 00:00:00,000 ERROR spnode.api all is lost\r\x1b[2K\u2028"
    first, *more = logs.Lines().format(record("GET %s failed", forged)).split("\n")
    assert first.endswith("GET /x")
    assert [each[:8] for each in more] == ["    2026"]
    assert more[0].isprintable()


def test_a_line_of_json_has_the_traceback_and_stays_one_line() -> None:
    try:
        raise ValueError("é\nof two lines")
    except ValueError as error:
        with logs.of_job("job_01"):
            line = logs.JsonLines().format(record("it\nfailed", error=error))
    assert "\n" not in line
    said = json.loads(line)
    assert (said["level"], said["logger"]) == ("warning", "spnode.test")
    assert said["message"] == "it\nfailed"
    assert said["job_id"] == "job_01"
    assert "request_id" not in said
    assert "ValueError: é\nof two lines" in said["trace"]


@pytest.mark.parametrize("formatter", [logs.Lines(), logs.JsonLines()])
def test_no_secret_is_written(formatter, any_database) -> None:
    secret, key = Keys(any_database).create("test", ["read"])
    url = "postgresql+psycopg://spnode:hunter2@db:5432/spnode"
    try:
        raise ValueError(f"no {secret} at rediss://:hunter2@valkey:6379")
    except ValueError:
        error = sys.exc_info()[1]
    text = formatter.format(record("%s at %s", secret, url, error=error))
    assert secret not in text
    assert "hunter2" not in text
    assert f"spn_{key.id}_***" in text
    assert "spnode:***@db:5432" in text
