"""What an evaluation job found: versions on the same held-out trajectories."""

from dataclasses import dataclass, field
from typing import Any, Self

from spnode_client.records import Record


@dataclass(frozen=True)
class Comparison:
    """Versions on the same trajectories, in the same units.

    Attributes:
        reference: The version that the others are held against.
        errors: By version the error of its worst state over the state's spread, from
            starts or from later samples, whichever is larger; None: not finite.
        verdicts: By version but the reference how it does beside it, a sentence.
        warnings: Which versions learned from the trajectories, in sentences.
        record: The whole answer: ``surrogates`` by state, ``baselines``, ``paired``.
    """

    reference: str
    errors: dict[str, float | None]
    verdicts: dict[str, str]
    warnings: tuple[str, ...]
    record: Record = field(repr=False)

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the service's answer."""
        paired = record["paired"]
        return cls(
            reference=record["reference"],
            errors={name: each["error"] for name, each in record["surrogates"].items()},
            verdicts={name: each["verdict"] for name, each in paired.items()},
            warnings=tuple(record["warnings"]),
            record=record,
        )

    def is_worse(self, version: str) -> bool:
        """Whether a version's error is larger than the reference's."""
        return self.record["paired"][version]["is_worse"]


def comparison_request(
    models: tuple[Any, ...], dataset: Any, options: Record
) -> Record:
    """The body of an evaluation job; options at None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    return {
        "kind": "evaluation",
        # A version is written like its reference.
        "models": [str(each) for each in models],
        "dataset": dataset if isinstance(dataset, str) else dataset.id,
        **given,
    }
