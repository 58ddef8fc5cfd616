import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from api.deadlines import MAX_TIMEOUT_S
from services.settings import (
    CLIENT_VARIABLES,
    PREFIX,
    Settings,
    SettingsError,
    read_settings,
)

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "settings.md"


def test_an_unknown_variable_is_an_error_with_near_matches(monkeypatch) -> None:
    monkeypatch.setenv("SPNODE_LEASE_SECOND", "5")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    message = str(refused.value)
    assert message.startswith("SPNODE_LEASE_SECOND is not a setting; did you mean")
    assert "SPNODE_LEASE_SECONDS" in message


def test_a_bad_value_is_an_error_that_names_the_variable(monkeypatch) -> None:
    monkeypatch.setenv("SPNODE_PORT", "seventy")
    with pytest.raises(SettingsError, match=r"SPNODE_PORT='seventy'"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        (
            "DATABASE",
            "postgres://me:secret@h/x",
            "sqlite:// or postgresql+psycopg://, found postgres://",
        ),
        (
            "DATABASE",
            "me:secret@h/x",
            "sqlite:// or postgresql+psycopg://, found no such",
        ),
        ("REDIS", "valkey://:secret@h", "with redis:// or rediss:// or unix:// or"),
        ("STORE", "ftp://me:secret@h", "with file:// or s3://, found ftp://"),
    ],
)
def test_a_url_of_another_kind_is_refused_and_its_password_not_told(
    monkeypatch, name: str, url: str, said: str
) -> None:
    monkeypatch.setenv(f"SPNODE_{name}_URL", url)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value).startswith(f"SPNODE_{name}_URL: ")
    assert said in str(refused.value)
    assert "secret" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("program", ["api", "services.database.migrate"])
def test_a_program_with_a_wrong_setting_ends_with_a_sentence(program: str) -> None:
    wrong = {**os.environ, "SPNODE_DATABASE_URL": "postgres://me:secret@h/x"}
    run = [sys.executable, "-m", program]
    done = subprocess.run(run, env=wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("SPNODE_DATABASE_URL: ")
    assert "secret" not in said


def test_a_lease_shorter_than_two_heartbeats_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("SPNODE_LEASE_SECONDS", "4")
    with pytest.raises(
        SettingsError, match=r"lease_seconds 4\.0 must be at least twice"
    ):
        read_settings()


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "3600.1"])
def test_a_rollout_has_a_deadline_that_its_caller_could_ask_for(
    monkeypatch, wrong: str
) -> None:
    name = "SPNODE_ROLLOUT_TIMEOUT_SECONDS"
    monkeypatch.setenv(name, str(MAX_TIMEOUT_S))
    assert read_settings().rollout_timeout_seconds == 3600
    monkeypatch.setenv(name, wrong)
    with pytest.raises(SettingsError, match=f"{name}='{wrong}'"):
        read_settings()


_NUMBERS = [
    name for name, field in Settings.model_fields.items() if field.annotation is float
]


@pytest.mark.parametrize("name", _NUMBERS)
@pytest.mark.parametrize("wrong", ["inf", "nan", "-inf"])
def test_a_number_is_finite(monkeypatch, name: str, wrong: str) -> None:
    assert "lease_seconds" in _NUMBERS
    variable = PREFIX + name.upper()
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(SettingsError, match=f"{variable}='{wrong}': .*finite"):
        read_settings()


def test_variables_of_the_client_are_left_alone(monkeypatch) -> None:
    for name in CLIENT_VARIABLES:
        monkeypatch.setenv(name, "anything")
    read_settings()


def test_urls_follow_the_data_folder() -> None:
    settings = Settings(data_folder=Path("/tmp/somewhere"))
    assert settings.database_url == "sqlite:////tmp/somewhere/spnode.db"
    assert settings.store_url == "file:///tmp/somewhere/store"


def test_environment_gives_another_process_the_same_settings(monkeypatch) -> None:
    settings = Settings(data_folder=Path("/tmp/x"), loopback_open=True, port=8123)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert read_settings() == settings


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    documented = set(re.findall(r"^### `(SPNODE_\w+)`", DOCUMENT.read_text(), re.M))
    assert documented == {PREFIX + name.upper() for name in Settings.model_fields}
