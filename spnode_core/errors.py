"""The typed errors of the library, each saying what was wrong, found and expected.

::

    SpnodeError
    ├── InvalidInput (also ValueError)   an argument, a dataset, a spec
    ├── ArtifactError                    a file that is not what it claims to be
    ├── TrainingError                    a run that cannot give a surrogate
    └── CalibrationError                 a search that cannot give an estimate
"""

import difflib
from collections.abc import Collection

# Longest name that is looked at, and longest list of those that are known.
_MOST_LETTERS, _LONGEST_LIST = 60, 300


class SpnodeError(Exception):
    """Base of every error that this library raises on purpose."""


class InvalidInput(SpnodeError, ValueError):
    """An input that cannot be used, with the place that is wrong.

    Args:
        field: Path of the offending value, e.g. ``"states[3, 17, 1]"`` or ``"x0"``.
        found: What was there, in words and with its value.
        expected: What belongs there, in words.
    """

    def __init__(self, field: str, *, found: str, expected: str) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field}: found {found}; expected {expected}")

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the three parts, since the message is made of them."""
        return (_invalid_input, (self.field, self.found, self.expected))


class ArtifactError(SpnodeError):
    """A surrogate's file is damaged, forged, too new, or fails its own probe."""


class TrainingError(SpnodeError):
    """A training run cannot give a usable surrogate; the message says why."""


class CalibrationError(SpnodeError):
    """No search from any start gives an estimate; the message says why."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count in words: ``1 sample``, ``2 samples``; ``many`` where no ``s`` does."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def one_of(name: str, known: Collection[str]) -> str:
    """What is expected where a name is not known: the one that is meant, and all."""
    near = difflib.get_close_matches(name[:_MOST_LETTERS], known, n=1, cutoff=0.7)
    listed = ", ".join(known)
    if len(listed) > _LONGEST_LIST:
        listed = listed[:_LONGEST_LIST].rpartition(",")[0] + ", …"
    return f"{near[0]}, perhaps; one of {listed}" if near else f"one of {listed}"


def _invalid_input(field: str, found: str, expected: str) -> InvalidInput:
    return InvalidInput(field, found=found, expected=expected)
