"""An alias that callers move to and fro, and what must have become of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from spnode_client.client import Client
from spnode_client.errors import Overloaded, ProblemError, Unreachable

ALIAS = "moving"
_PRECONDITION_FAILED = 412


@dataclass
class Moves:
    """The moves of an alias between two versions, one after the other.

    Args:
        model: Whose alias.
        taken: The numbers that the service said it moved to, in order.
        unanswered: How many moves may have been made beside them.
    """

    model: str
    taken: list[int] = field(default_factory=list)
    unanswered: int = 0

    def move(self, client: Client) -> None:
        """Move it on, under If-Match of where it is."""
        number = 1 + (len(self.taken) + self.unanswered) % 2
        try:
            client.models.set_alias(self.model, ALIAS, number)
        except (Unreachable, Overloaded):
            self.unanswered += 1
        except ProblemError as error:
            # An earlier try of this move, whose answer was lost, was made.
            if error.status != _PRECONDITION_FAILED:
                raise
            self.unanswered += 1
        else:
            self.taken.append(number)

    def contradictions(self, moved: Sequence[int], now: int | None) -> Iterator[str]:
        """Yield what the rows say otherwise than the answers.

        Args:
            moved: The numbers in the history, in order.
            now: Where the alias points.
        """
        rest = iter(moved)
        if not all(number in rest for number in self.taken):
            yield "a move of an alias is lost"
        if len(moved) > len(self.taken) + self.unanswered:
            yield "an alias was moved twice for one request"
        if now != (moved[-1] if moved else None):
            yield "an alias is not where it was moved last"
