"""What became of each thing in an archive that was taken in."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["added", "there", "moved", "left", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of one thing.

    Attributes:
        what: ``version``, ``alias`` or ``dataset``.
        name: As people write it, such as ``robertson/3``.
        state: ``added`` or ``moved``; ``there``: as it is here already; ``left``:
            nobody asked for it, or it means something else here; ``refused``: it could
            not be taken.
        detail: Why, or under which other name it is here.
    """

    what: Literal["version", "alias", "dataset"]
    name: str
    state: State
    detail: str = ""


@dataclass
class Imported:
    """Everything that became of an archive."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was refused."""
        return not self.of("refused")

    def of(self, state: State) -> list[Outcome]:
        """All outcomes of one state."""
        return [each for each in self.outcomes if each.state == state]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        outcomes = [asdict(each) for each in self.outcomes]
        return {"is_good": self.is_good, "outcomes": outcomes}
