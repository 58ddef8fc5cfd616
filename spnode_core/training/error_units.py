"""What the errors of latent states are measured in."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from spnode_core.data_report import choose_kind
from spnode_core.deviations import or_size
from spnode_core.training.operator_inference import Snapshots

Values = NDArray[np.float64]
_LEAST = 1e-100


def spread_of(snapshots: list[Snapshots]) -> Values:
    """Standard deviations; of what stands still, its size."""
    z = np.concatenate([each.z for each in snapshots])
    return or_size(z.std(axis=0), np.abs(z).max(axis=0))


@dataclasses.dataclass(frozen=True)
class Units:
    """What errors are measured in.

    Args:
        spread: Standard deviations.
        ratios: Those of the logarithms of states that span decades; NaN for others.
    """

    spread: Values
    ratios: Values

    @classmethod
    def of(cls, snapshots: list[Snapshots]) -> "Units":
        """Those of some samples."""
        z = np.concatenate([each.z for each in snapshots])
        ratios = np.full(z.shape[1], np.nan)
        for i, column in enumerate(z.T):
            if choose_kind(column) == "log":
                ratios[i] = np.log(column).std()
        return cls(spread_of(snapshots), ratios)

    def by_ratio(self, ends: Values) -> Values:
        """Units in which small errors are those of logarithms, ``(pair, latent)``."""
        # Squares of what is smaller still would leave the finite range.
        sizes = np.maximum(np.abs(ends), _LEAST * self.spread)
        return np.where(np.isnan(self.ratios), self.spread, self.ratios * sizes)
