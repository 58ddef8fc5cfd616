"""What a worker logs is a JSON object a line where that is asked for."""

import json
import os
from pathlib import Path

import pytest

from tests.worker.conftest import deployment


def test_every_line_of_a_worker_that_trains_is_json(
    valkey: str, tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # JAX has set it in this process.
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with deployment(valkey, tmp_path, compiled, log_format="json") as stack:
        stack.start_worker()
        # The second one loads the programs that the first has compiled.
        for name in ("compiles", "loads"):
            ended = stack.end(stack.train(name).id)
            assert ended.state == "succeeded", ended.error
        said = [json.loads(line) for line in stack.log.read_text().splitlines()]
    loggers = {each["logger"] for each in said}
    assert "spnode.worker" in loggers
    # Celery's warning has paragraphs.
    assert ("py.warnings" in loggers) == (os.getuid() == 0), loggers
