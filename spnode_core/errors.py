"""The typed errors of the library, each saying what was wrong, found and expected.

::

    SpnodeError
    ├── InvalidInput (also ValueError)   an argument, a dataset, a spec
    ├── ArtifactError                    a file that is not what it claims to be
    ├── TrainingError                    a run that cannot give a surrogate
    └── CalibrationError                 a search that cannot give an estimate
"""


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


def _invalid_input(field: str, found: str, expected: str) -> InvalidInput:
    return InvalidInput(field, found=found, expected=expected)
