"""What is known of a model version that serves rollouts without loading it."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.errors import Invalid, NotFound
from services.registry import Registry
from services.versions import CHAMPION
from spnode_core.spec import Signature, SurrogateSpec

_LOG = logging.getLogger(__name__)
# A state on the edge of the training box may leave it by rounding alone.
_EDGE = 1e-9
# What is drawn as the training data were may leave their box a little: of N values from
# a uniform distribution, the next one lies beyond by 1 / (N + 1) on each side.
_MARGIN = 0.02
# Of the upper end over the lower, from which on the margin is one of ratios.
_DECADES = 30.0


@dataclass(frozen=True)
class Served:
    """A version's identity and signature.

    Args:
        model: Name of the model.
        version: Its number.
        digest: Content hash of its artifact.
        signature: What it accepts and returns.
        spec: How it was built, for the sums that it conserves.
    """

    model: str
    version: int
    digest: str
    signature: Signature
    spec: SurrogateSpec

    @functools.cached_property
    def boxes(self) -> dict[str, "Box"]:
        """The training domain of ``x0``, ``parameters``, ``controls``, ``sums``."""
        domain, kinds = self.signature.domain, self.spec.normalisation
        found = {
            "x0": Box.of(self.signature.states, domain.lower, domain.upper, kinds),
            "parameters": Box.of(
                self.signature.parameters,
                domain.parameters_lower,
                domain.parameters_upper,
                kinds,
                by_ratio=True,
            ),
            "controls": Box.of(
                self.signature.controls,
                domain.controls_lower,
                domain.controls_upper,
                kinds,
            ),
            "sums": Box.of(
                tuple(self.spec.conserved),
                domain.conserved_lower,
                domain.conserved_upper,
                {},
            ),
        }
        return {name: box for name, box in found.items() if box is not None}

    @functools.cached_property
    def known(self) -> dict[tuple, tuple[Any, Any]]:
        """What requests were like so far, with their work and layout."""
        return {}

    @functools.cached_property
    def sums(self) -> np.ndarray:
        """Coefficients of the conserved sums, ``(state, sum)``."""
        rows = [
            [coefficients.get(state, 0.0) for state in self.signature.states]
            for coefficients in self.spec.conserved.values()
        ]
        found = np.array(rows, np.float64).reshape(-1, len(self.signature.states))
        return np.ascontiguousarray(found.T)


def are_all(mask: np.ndarray) -> bool:
    """Whether all of a mask is True.

    Every batch asks: numpy's own ``all`` takes several times as long right after a
    rollout, when nothing of it is in the processor's cache.
    """
    return b"\0" not in mask.tobytes()


@dataclass(frozen=True)
class Box:
    """Bounds that the training data stayed within, by name."""

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    is_log: np.ndarray
    """Whether a quantity counts by its logarithm, so that its margin is one of ratios.
    """

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        lower: tuple[float, ...],
        upper: tuple[float, ...],
        kinds: Mapping[str, str],
        *,
        by_ratio: bool = False,
    ) -> "Box | None":
        """The box, or None where the version states no bounds for these names.

        Args:
            names: Of the quantities.
            lower: Their smallest values in the training data.
            upper: Their largest.
            kinds: How each was learned.
            by_ratio: Whether a range of decades counts as one of ratios, however it was
                learned: two per cent of it are far below its lower end.
        """
        if not names or len(lower) != len(names) or len(upper) != len(names):
            return None
        low, high = np.array(lower), np.array(upper)
        is_log = np.array([kinds.get(name) == "log" for name in names])
        is_log |= by_ratio & (low > 0) & (high > _DECADES * low)
        return cls(names, low, high, is_log)

    def holds(self, values: np.ndarray) -> bool:
        """Whether all values, ``(…, name)``, are numbers that are not outside."""
        if values.size == len(self.names):
            numbers = values.ravel().tolist()
            edges = zip(numbers, *self._edge_numbers, strict=True)
            return all(below <= number <= above for number, below, above in edges)
        below, above = self._edges
        return are_all(values >= below) and are_all(values <= above)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which values, ``(…, name)``, lie beyond the bounds by more than a margin."""
        below, above = self._edges
        return (values < below) | (values > above)

    @functools.cached_property
    def _edge_numbers(self) -> list[list[float]]:
        """The same as numbers: for one row they are compared before numpy begins."""
        return [edge.tolist() for edge in self._edges]

    @functools.cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = self.lower, self.upper
        slack = _EDGE * np.maximum(np.abs(lower), np.abs(upper))
        margin = slack + _MARGIN * (upper - lower)
        below, above = lower - margin, upper + margin
        # What never had the other sign is not expected to have it.
        below = np.where(lower >= 0, np.maximum(below, -slack), below)
        above = np.where(upper <= 0, np.minimum(above, slack), above)
        is_log = self.is_log & (lower > 0)
        low, high = (np.where(is_log, end, 1.0) for end in (lower, upper))
        factor = np.maximum((high / low) ** _MARGIN, 1 + _EDGE)
        below = np.where(is_log, low / factor, below)
        return below, np.where(is_log, high * factor, above)


def pinned(registry: Registry, references: str) -> frozenset[str]:
    """Digests of the versions that references, with commas between, mean now.

    One that means nothing is left out, and said so in the log: it may come later.
    """
    found = set()
    for reference in filter(None, map(str.strip, references.split(","))):
        try:
            found.add(registry.resolve(reference, field="SPNODE_PINNED_MODELS").digest)
        except (Invalid, NotFound) as error:
            _LOG.warning("%s cannot be pinned: %s", reference, error)
    return frozenset(found)


def champions(registry: Registry) -> set[str]:
    """Digests of the versions that are champions now: what is to be kept warm."""
    found: set[str] = set()
    after = None
    while True:
        page = registry.models(limit=100, after=after)
        for model in page.items:
            number = model.aliases.get(CHAMPION)
            if number is not None:
                found.add(registry.version(model.name, number).digest)
        if page.next is None:
            return found
        after = page.next
