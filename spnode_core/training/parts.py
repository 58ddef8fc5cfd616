"""The trajectories of a run by what they are for, and a few of many."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from spnode_core.dataset import Dataset
from spnode_core.spec import SplitSpec

MOST_TRAJECTORIES = 256
"""A full batch is at most so many trajectories; more cost time and gain nothing."""


@dataclass(frozen=True)
class Parts:
    """The trajectories of a run, by what they are for."""

    train: Dataset
    validation: Dataset
    test: Dataset
    pieces: int = 1
    """Into how many each trajectory was cut before it was divided."""

    @classmethod
    def of(cls, dataset: Dataset, split: SplitSpec, seed: int) -> Self:
        """Those of a dataset.

        Raises:
            InvalidInput: As of ``Dataset.split``.
        """
        return cls(*dataset.split(split, seed), split.pieces)

    @property
    def held_out(self) -> Dataset | None:
        """Those for the test before those for validation; None where all were used."""
        parts = (self.test, self.validation)
        return next((part for part in parts if part.trajectories), None)


def some(dataset: Dataset, seed: int) -> Dataset:
    """At most ``MOST_TRAJECTORIES`` trajectories, chosen by the seed."""
    if dataset.trajectories <= MOST_TRAJECTORIES:
        return dataset
    order = np.random.default_rng([seed, 21]).permutation(dataset.trajectories)
    return dataset.take(np.sort(order[:MOST_TRAJECTORIES]))
