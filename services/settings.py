"""Settings of a deployment, from environment variables that begin with ``SPNODE_``.

A variable with that prefix that is no setting is an error that names it and the
settings nearest to it: a misspelt limit never passes in silence. ``docs/settings.md``
describes each.
"""

import difflib
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SPNODE_"
CLIENT_VARIABLES = frozenset({"SPNODE_URL", "SPNODE_KEY"})
"""Variables of the client and its command line, which are no settings of a service."""

MIB = 2**20
_SCHEMES = {
    "database_url": ("sqlite", "postgresql+psycopg"),
    "redis_url": ("redis", "rediss", "unix", "redis+socket"),
    "store_url": ("file", "s3"),
    "traces_url": ("http", "https"),
}


class SettingsError(ValueError):
    """A variable that is no setting, or a value that a setting does not take."""


class Settings(BaseSettings):
    """What a deployment can set; every field is ``SPNODE_`` and its name in capitals.

    Raises:
        SettingsError: by ``get_settings``, for an unknown variable or a bad value.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    data_folder: Path = Path("~/.spnode")
    """Folder of everything that this machine keeps: database, store, sockets, keys."""
    database_url: str = ""
    """SQLAlchemy URL, e.g. postgresql+psycopg://…; empty: SQLite in the data folder."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey: redis://, rediss:// or unix:///path/to.sock."""
    store_url: str = ""
    """Where blobs lie: file:///folder or s3://bucket/prefix; empty: the data folder."""
    executor: Literal["inline", "queue"] = "inline"
    """Where rollouts run: a thread of the gateway, or rollout workers."""
    rollout_workers: PositiveInt = 1
    """How many rollout workers there are at least where the executor is queue."""
    job_workers: PositiveInt = 1
    """How many workers of jobs ``up`` starts, each of which runs one at a time."""

    host: str = "127.0.0.1"
    """Address the gateway listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port the gateway listens on; 0 lets the system choose."""
    loopback_open: bool = False
    """Whether callers from this machine need no key."""
    key_cache_seconds: Annotated[float, Field(gt=0, le=1)] = 1.0
    """For how long a verified key is believed without asking the database."""
    version_cache_seconds: PositiveFloat = 2.0
    """For how long a gateway keeps the version that a name or alias resolved to."""
    tesseract_jacobian: bool = True
    """Whether versions name jacobian among their endpoints at /tesseract."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log record that is written."""
    log_format: Literal["text", "json"] = "text"
    """How records are written: a line for people, or a JSON object a line."""
    traces_url: str = ""
    """Collector of OpenTelemetry's spans, OTLP over HTTP; empty: there are no spans."""
    traces_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the traces that it gets, of those that callers keep."""

    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of a worker's metrics, on the address of ``host``; 0: none."""

    rate_per_key: NonNegativeFloat = 0.0
    """Requests a second of one key, over all gateways; 0: as many as there are."""
    rate_burst: PositiveInt = 100
    """Requests of one key at once, where its rate is limited."""
    max_queued_jobs: PositiveInt = 10_000
    """Jobs of one key that may wait; then new ones are told to come later."""
    queued_jobs_limit: PositiveInt = 100_000
    """Jobs of all keys that may wait; then new ones are told to come later."""
    max_body_bytes: PositiveInt = 256 * MIB
    """Largest body of a rollout, in a binary form; JSON of others may have 2 MiB."""
    max_json_bytes: PositiveInt = 32 * MIB
    """Largest JSON of a rollout: read, it takes twenty times as much memory."""
    body_space_bytes: PositiveInt = 1024 * MIB
    """Memory for bodies of rollouts in a gateway, twenty bytes for one of JSON; the
    largest one there is always room for."""
    body_seconds: PositiveFloat = 30.0
    """How long a body may take to come; a second more for each 16 KiB of it."""
    max_upload_bytes: PositiveInt = 2048 * MIB
    """Largest uploaded dataset, as sent and as unpacked."""
    upload_space_bytes: PositiveInt = 8192 * MIB
    """Bytes of uploads that a gateway's disk holds at once, by what they claim; the
    largest one there is always room for."""
    parser_memory_bytes: PositiveInt = 6144 * MIB
    """Address space of the process that parses an upload, or solves a built-in
    system."""
    parser_seconds: PositiveFloat = 120.0
    """Wall and CPU time of the process that parses an upload."""

    lease_seconds: PositiveFloat = 15.0
    """How long a worker holds a job without renewing; then another may take it."""
    heartbeat_seconds: PositiveFloat = 3.0
    """How often a worker renews its leases and says that it lives."""
    resend_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """After which time a queued job's message counts as lost and is sent again; jobs
    that are put off rest for so long, an hour at most."""
    stop_seconds: PositiveFloat = 10.0
    """How long a stopping worker waits for the checkpoint of a job that it runs."""
    stall_seconds: PositiveFloat = 3600.0
    """After which time without news or computing a job's process counts as hung, is
    killed, and starts again; one that does not say that it lives, after four leases."""
    rollout_stall_seconds: PositiveFloat = 300.0
    """After which time a rollout, load or compilation that uses no processor counts as
    hung: its process, a rollout worker or a gateway that computes, ends with exit code
    1 and is to be started again. Where the process does compute, after two hours."""
    checkpoint_seconds: PositiveFloat = 10.0
    """How often, at most, a running job writes a checkpoint to the store."""
    max_attempts: PositiveInt = 3
    """How often a job is started before a crash counts as final."""
    orphan_seconds: PositiveFloat = 24 * 3600.0
    """After which time a content of the store that nothing refers to is deleted."""

    max_states: PositiveInt = 100_000
    """Most states of a dataset that is uploaded, and of an artifact."""
    max_rows: PositiveInt = 65_536
    """Most initial conditions in one rollout."""
    max_times: PositiveInt = 65_536
    """Most output times in one rollout."""
    max_output_values: PositiveInt = 50_000_000
    """Most numbers in one answer: rows x times x states."""
    max_batch_rows: PositiveInt = 256
    """Most rows that are gathered into one batch."""
    rollout_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How long a rollout may take whose caller says nothing: no Request-Timeout."""
    max_job_rows: PositiveInt = 100_000_000
    """Most initial conditions in one rollout job."""
    max_observations: PositiveInt = 10_000
    """Most observations in one calibration job: times x observed states."""
    max_result_bytes: PositiveInt = 64 * 1024 * MIB
    """Largest result of a rollout job, all its chunks together."""
    result_chunk_bytes: PositiveInt = 32 * MIB
    """Size of a chunk of such a result, about; it bounds a worker's memory."""
    result_keep_seconds: PositiveFloat = 7 * 24 * 3600.0
    """How long the result of a rollout job, and the checkpoint of a cancelled job, are
    kept after the job has ended."""
    event_keep_seconds: PositiveFloat = 90 * 24 * 3600.0
    """How long the losses and log lines of a job are kept after it has ended."""
    queued_rows_limit: PositiveInt = 262_144
    """Rows that may wait for the executor before new ones are told to come later."""
    queued_bytes_limit: PositiveInt = 1024 * MIB
    """Bytes of their inputs and of the answers expected, likewise."""
    resident_bytes: PositiveInt = 2048 * MIB
    """Memory for loaded and compiled models; the least recently used leaves first."""
    tile_bytes: PositiveInt = 2048 * MIB
    """Memory that the rows of one tile may take, about; longer rollouts run in smaller
    tiles, and what is too long for the smallest is refused."""
    resident_programs: PositiveInt = 400
    """Most compiled programs of all models; fewer are kept where they take more than
    0.6 of the memory mappings that Linux gives a process."""
    pinned_models: str = ""
    """Models, as in requests, commas between, that are loaded and never leave."""
    memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of a GPU's memory that one process takes, so that two can share it."""

    @field_validator(*_SCHEMES)
    @classmethod
    def _is_url(cls, url: str, info: ValidationInfo) -> str:
        schemes = _SCHEMES[str(info.field_name)]
        found, separator, _ = url.partition("://")
        if url and not (separator and found in schemes):
            expected = " or ".join(f"{scheme}://" for scheme in schemes)
            other = f"{found}://" if separator else "no such beginning"
            raise ValueError(f"expected a URL with {expected}, found {other}")
        return url

    @model_validator(mode="after")
    def _complete(self) -> Self:
        folder = self.data_folder.expanduser().absolute()
        derived = {
            "data_folder": folder,
            "database_url": self.database_url or f"sqlite:///{folder / 'spnode.db'}",
            "store_url": self.store_url or (folder / "store").as_uri(),
        }
        # A frozen model is completed once, here, before anybody can see it.
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"lease_seconds {self.lease_seconds} must be at least twice "
                f"heartbeat_seconds {self.heartbeat_seconds}"
            )
        return self

    def environment(self) -> dict[str, str]:
        """Return the variables that give another process these settings."""
        values = self.model_dump(mode="json")
        return {
            PREFIX + name.upper(): str(value).lower()
            if isinstance(value, bool)
            else str(value)
            for name, value in values.items()
        }


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of this process's environment and check every variable.

    Args:
        environment: Where unknown variables are looked for; ``os.environ`` by default.

    Raises:
        SettingsError: A ``SPNODE_`` variable is no setting, or a value is not allowed.
    """
    _refuse_unknown(os.environ if environment is None else environment)
    try:
        return Settings()
    except ValidationError as error:
        # Its own text has the values, passwords of addresses with them.
        raise SettingsError("; ".join(map(_sentence, error.errors()))) from None


@functools.cache
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return read_settings()


def settings_or_exit() -> Settings:
    """The same for a program that can but end where they are wrong: with a sentence."""
    try:
        return get_settings()
    except SettingsError as error:
        sys.exit(str(error))


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in known | CLIENT_VARIABLES:
            continue
        near = difflib.get_close_matches(variable, sorted(known), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else ""
        raise SettingsError(
            f"{variable} is not a setting; {hint or 'docs/settings.md lists them all'}"
        )


def _sentence(error: object) -> str:
    assert isinstance(error, dict)
    place = error["loc"][0] if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if not place:
        return message
    # A URL may hold a password.
    value = "" if place in _SCHEMES else f"={error['input']!r}"
    return f"{PREFIX}{str(place).upper()}{value}: {message}"
