"""Half-widths of prediction intervals, as they are kept beside a signature."""

from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spnode_core.spec.base import Spec
from spnode_core.spec.surrogate import ScalingKind

Part = Annotated[float, Field(gt=0, lt=1)]
Radius = Annotated[float, Field(ge=0)]


class IntervalsSpec(Spec):
    """Radii of intervals around a rollout, by coverage, bin of time and state."""

    coverages: tuple[Part, ...]
    """Parts of the truth that the intervals hold, those that can be promised."""
    trajectories: PositiveInt
    """Held-out trajectories that the radii come from: fewest in a bin. With n of them
    no coverage above n / (n + 1) can be promised."""
    edges: Annotated[tuple[float, ...], Field(min_length=2)]
    """Bounds of the bins of elapsed time; later times count as the last bin."""
    kinds: tuple[ScalingKind, ...]
    """In what each state is measured: itself, its logarithm or asinh."""
    widths: tuple[PositiveFloat, ...]
    """What asinh divides by, and what a logarithm is cut off at, for each state."""
    radii: tuple[tuple[tuple[Radius, ...], ...], ...]
    """``(coverage, bin, state)``, in what the state is measured in."""
    positive: bool = False
    """Whether no state is ever below 0, so that no interval need be."""

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.coverages, self.trajectories, self.edges))

    @property
    def largest(self) -> float:
        """The largest coverage that so many trajectories can promise."""
        return self.trajectories / (self.trajectories + 1)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        bins, states = len(self.edges) - 1, len(self.kinds)
        fits = len(self.radii) == len(self.coverages) and len(self.widths) == states
        for table in self.radii:
            fits = fits and len(table) == bins
            fits = fits and all(len(row) == states for row in table)
        rising = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if not (fits and rising):
            raise ValueError("radii must be numbers by coverage, bin and state")
        return self
