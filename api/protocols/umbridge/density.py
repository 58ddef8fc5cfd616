r"""The log-likelihood of observations with Gaussian noise, as samplers want it.

.. math:: \log p(y | \theta) = -\frac12 \sum_i \frac{(x_i - y_i)^2}{\sigma_i^2}
          - \sum_i \log(\sigma_i \sqrt{2 \pi})

The sums go over the observations that are not missing. The first one is the misfit of
``/v1/objective``, so that its value and its gradient are one call of the engine.
"""

from dataclasses import dataclass

import numpy as np

from api.protocols.umbridge.config import Config
from services.rollouts.request import Arrays
from spnode_core.errors import InvalidInput


@dataclass(frozen=True)
class Density:
    """Observations and their noise.

    Args:
        observations: Of the shape of ``x``, NaN where missing.
        weights: ``1 / noise**2`` of each, 0 where missing.
        constant: What does not depend on the states.
    """

    observations: np.ndarray
    weights: np.ndarray
    constant: float

    @classmethod
    def of(cls, config: Config, shape: tuple[int, ...]) -> "Density | None":
        """The likelihood that a config asks for, if it does.

        Args:
            config: Has observations and noise, or neither.
            shape: Of ``x``.

        Raises:
            InvalidInput: One is missing, or of a wrong shape.
        """
        if config.observations is None or config.noise is None:
            _refuse_one(config)
            return None
        y = _as_array(config.observations)
        if y is None or y.shape != shape:
            raise InvalidInput(
                "config.observations",
                found="uneven lists" if y is None else f"an array of shape {y.shape}",
                expected=f"the shape of the states, {shape}",
            )
        noise = np.asarray(config.noise, np.float64)
        if noise.shape not in ((), shape[-1:]):
            raise InvalidInput(
                "config.noise",
                found=f"{noise.size} numbers",
                expected=f"one, or one for each of {shape[-1]} states",
            )
        with np.errstate(over="ignore", divide="ignore"):
            weights = 1.0 / (noise * noise)
        if not np.isfinite(weights).all():
            raise InvalidInput(
                "config.noise",
                found=repr(float(noise.min())),
                expected="numbers whose squares are not 0",
            )
        seen = ~np.isnan(y)
        logs = np.broadcast_to(np.log(noise) + 0.5 * np.log(2 * np.pi), shape)
        weights = np.where(seen, weights, 0.0)
        return cls(y, weights, -float(logs[seen].sum()))

    def objective(self) -> Arrays:
        """Arrays of a misfit that is minus the log-likelihood, without its constant."""
        return {
            "objective.observations": self.observations,
            "objective.weights": 0.5 * self.weights,
        }

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The derivative by the states."""
        return -self.weights * (x - np.nan_to_num(self.observations))


def _refuse_one(config: Config) -> None:
    pair = {"observations": config.observations, "noise": config.noise}
    missing = [name for name, value in pair.items() if value is None]
    if len(missing) == 1:
        (given,) = set(pair) - set(missing)
        raise InvalidInput(
            f"config.{missing[0]}", found="nothing", expected=f"some beside {given}"
        )


def _as_array(observations: list) -> np.ndarray | None:
    try:
        return np.array(observations, np.float64)
    except ValueError:
        return None
