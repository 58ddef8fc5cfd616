"""The smallest program: what it is told comes back."""

from benchmarks.peers.answering import Contestants, answer_calls
from benchmarks.speed.turns import repeated

if __name__ == "__main__":
    contestants = Contestants()
    contestants["nothing"] = repeated(lambda: None)
    answer_calls(
        {
            "echo": lambda **told: told,
            "divide": lambda: 1 / 0,
            "measure": contestants.measure,
        }
    )
