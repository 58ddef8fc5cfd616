"""What a sweep found: its candidates, best first, on the same held-out trajectories."""

from dataclasses import dataclass, field
from typing import Any, Self

from spnode_client.records import Record


@dataclass(frozen=True)
class Candidate:
    """One training of a sweep.

    Attributes:
        job: Id of its job.
        settings: What it has beside the others, by dotted field.
        version: Number of the version that it made; None where it did not.
        validation: Error of its worst state over the state's spread, from starts or
            from later samples, whichever is larger, on the validation part; None: not
            finite, or no version.
        test: The same on the test part, which chose nothing.
        seconds: From its first start to its end.
        failure: Why there is no version; empty where there is one.
    """

    job: str
    settings: dict[str, Any]
    version: int | None
    validation: float | None
    test: float | None
    seconds: float | None
    failure: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read a row of the service's ranking."""
        error = record["error"] or {}
        has_none = record["version"] is None
        failure = (error.get("detail") or record["state"]) if has_none else ""
        names = ("job", "settings", "version", "validation", "test", "seconds")
        return cls(failure=failure, **{name: record[name] for name in names})


@dataclass(frozen=True)
class Joined:
    """The ensemble that the best candidates of a sweep were joined into.

    Attributes:
        version: Its number.
        members: Numbers of the versions that it was made of, the best first.
        validation: Its error as of a ``Candidate``; None: not finite.
        test: The same on the test part.
    """

    version: int
    members: tuple[int, ...]
    validation: float | None
    test: float | None

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read what the service says of it."""
        names = ("version", "validation", "test")
        members = tuple(record["members"])
        return cls(members=members, **{name: record[name] for name in names})


@dataclass(frozen=True)
class Ranking:
    """The candidates of a sweep, best first; those without a version are last.

    As a text it is the version that its aliases go to: ``name/3``.

    Attributes:
        model: The model whose versions they are.
        best: Number of the best version.
        candidates: All of them.
        ensemble: What the best were joined into, where that was asked for.
        aliases: Which aliases point at the ensemble, or else at the best one, now.
        warnings: Why fewer were joined than were asked for.
        record: The whole answer.
    """

    model: str
    best: int
    candidates: tuple[Candidate, ...]
    ensemble: Joined | None
    aliases: tuple[str, ...]
    warnings: tuple[str, ...]
    record: Record = field(repr=False)

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the service's answer."""
        return cls(
            model=record["model"],
            best=record["best"],
            candidates=tuple(map(Candidate.of, record["ranking"])),
            # Sweeps of before there were any say nothing of it.
            ensemble=Joined.of(found) if (found := record.get("ensemble")) else None,
            aliases=tuple(record["aliases"]),
            warnings=tuple(record.get("warnings", ())),
            record=record,
        )

    def __str__(self) -> str:
        return f"{self.model}/{self.ensemble.version if self.ensemble else self.best}"


def sweep_request(dataset: Any, model: str, options: Record, base: Record) -> Record:
    """The body of a sweep; options at None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    return {
        "kind": "sweep",
        "dataset": dataset if isinstance(dataset, str) else dataset.id,
        "model": model,
        **given,
        "base": {name: value for name, value in base.items() if value is not None},
    }
