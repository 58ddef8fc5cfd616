"""How many programs may be compiled at a time, and which of them are let go of.

A compiled program takes from 90 to 500 memory mappings, of which Linux gives a process
65,530 (``vm.max_map_count``), and a process that needs more is ended. So they are
counted whenever something was compiled, against what may be taken of them::

    up to 2/3        whatever is likely to be asked for is compiled ahead
    up to the whole  what requests ask for, and other tiles of that
    beyond           what was asked for least recently is let go of, for a request

What is done ahead thus never lets anything go, so it comes to an end.
"""

import threading
from pathlib import Path

from services.rollouts.loaded import Model
from services.rollouts.plans import Plans
from services.rollouts.resident import Resident
from services.rollouts.shapes import Shape

_MAPS, _MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
# Of Linux, unless it was told otherwise.
_USUAL_MOST = 65_530
# What else has mappings, and what is compiled at the same time, finds room beyond it.
_SHARE = 0.6
_SHARE_AHEAD = 2 / 3


class Programs:
    """The compiled programs of all models, bounded by number and by memory mappings.

    Args:
        resident: The models that are loaded.
        most: Most programs of all of them.
    """

    def __init__(self, resident: Resident[Model], most: int) -> None:
        self._resident, self._most = resident, most
        self._most_mappings = _SHARE * most_mappings()
        self._left, self.mappings = 0, mappings()
        """Of this process, when they were counted last."""
        self.changing = threading.Lock()
        """Held where threads would undo each other's changes to a model's shapes."""

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(model.programs for model in self._resident.models)

    @property
    def have_room_ahead(self) -> bool:
        """Whether there may be more before anybody asks."""
        return self._is_below(_SHARE_AHEAD)

    def counted(self) -> None:
        """Count again, after something was compiled: that takes 5 to 50 ms."""
        self._left, self.mappings = self._resident.evictions, mappings()

    def next_untried(self) -> tuple[Model, Shape, Plans, int] | None:
        """The next tile that is worth trying, which is then no longer untried."""
        if not self._is_below(1.0):
            return None
        for model in self._resident.models:
            with self.changing:
                found = model.next_untried(only_asked=not self.have_room_ahead)
            if found is not None:
                return model, *found
        return None

    def evict(self) -> None:
        """Let go of what was asked for least recently, until there are few enough.

        What was asked for last stays, whatever it takes.
        """
        if self._fullness <= 1:
            return
        models = self._resident.models
        kept = [(model, program) for model in models for program in model.kept]
        kept.sort(key=lambda one: one[0].asked.get(one[1], 0.0))
        for model, program in kept[:-1]:
            with self.changing:
                model.forget(program)
            self.counted()
            if self._fullness <= 1:
                return

    def _is_below(self, share: float) -> bool:
        if self._fullness >= share and self._left != self._resident.evictions:
            # Models have gone since they were counted.
            self.counted()
        return self._fullness < share

    @property
    def _fullness(self) -> float:
        return max(self.count / self._most, self.mappings / self._most_mappings)


def mappings() -> int:
    """Memory mappings of this process; 0 where the system does not tell."""
    try:
        return _MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0


def most_mappings() -> int:
    """How many a process may have."""
    try:
        return int(_MOST_MAPS.read_text())
    except (OSError, ValueError):
        return _USUAL_MOST
