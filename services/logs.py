"""What a process logs, for people or for machines, and of which request or job.

A record says so wherever it is written, since both are context variables. Keys and the
passwords of addresses are left out of every record, whoever wrote them into it.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from services.settings import Settings
from services.traces import trace_id

_REQUEST: ContextVar[str] = ContextVar("request", default="")
_JOB: ContextVar[str] = ContextVar("job", default="")
_KEY = re.compile(r"\bspn_([0-9a-z]+)_[\w-]{20,}")
_PASSWORD = re.compile(r"(\w://[^\s/:@]*):[^\s/@]+@")
# Controls, but for tabs and ends of lines.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_NOISY = ("celery", "kombu", "alembic")


def configure(settings: Settings) -> None:
    """Have the root logger write as the settings say, to standard error.

    What libraries warn of is a record too, as that Celery runs as root.
    """
    handler = logging.StreamHandler()
    formatter = JsonLines() if settings.log_format == "json" else Lines()
    handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def keep_xla_quiet() -> None:
    """Have XLA write nothing of its own to the log; before JAX is imported.

    Of every program that it loads from a file it tells that the machine lacks features
    which are no machine's: prefer-no-gather is a wish of its own.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def of_request(id: str) -> None:
    """What this task logs from now on belongs to a request."""
    _REQUEST.set(id)


@contextmanager
def of_job(id: str) -> Iterator[None]:
    """What this thread logs in the block belongs to a job."""
    token = _JOB.set(id)
    try:
        yield
    finally:
        _JOB.reset(token)


class Lines(logging.Formatter):
    """``time level logger message``, and the request or the job in brackets.

    What belongs to a record and is not its first line is indented, so that no text of
    others passes for a record; it moves no cursor either.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record, without its traceback."""
        belongs = " ".join(_belongs().values())
        line = super().formatMessage(record)
        return f"{line} [{belongs}]" if belongs and belongs not in line else line

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without secrets."""
        text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", super().format(record))
        return without_secrets(text.replace("\n", "\n    "))


class JsonLines(logging.Formatter):
    """A JSON object a line: time, level, logger, message, and where it belongs.

    ``request_id``, ``job_id`` and ``trace_id``; ``trace`` is that of an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, without secrets."""
        at = datetime.fromtimestamp(record.created, UTC)
        said = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_belongs(),
        }
        if (id := trace_id()) is not None:
            said["trace_id"] = id
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(said, ensure_ascii=False))


def without_secrets(text: str) -> str:
    """A text without the secrets of keys and the passwords of addresses."""
    return _PASSWORD.sub(r"\1:***@", _KEY.sub(r"spn_\1_***", text))


def _belongs() -> dict[str, str]:
    found = {"request_id": _REQUEST.get(), "job_id": _JOB.get()}
    return {name: id for name, id in found.items() if id}
