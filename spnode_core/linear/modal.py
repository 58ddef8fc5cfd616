"""Decoupled modes: real decay rates and damped oscillating pairs."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy.typing import NDArray

from spnode_core.integrators.phi import phi
from spnode_core.linear.base import AbstractLinearOperator, AbstractPropagator


class ModalPropagator(AbstractPropagator):
    """Elementwise ``phi_0 .. phi_order``: reals first, then one complex per pair."""

    decay: Float[Array, " real"]
    pair_decay: Complex[Array, " pair"]
    phis: Float[Array, "order real"]
    pair_phis: Complex[Array, "order pair"]

    def apply(
        self, order: int, vector: Float[Array, " latent"]
    ) -> Float[Array, " latent"]:
        """``phi_order(h A) v``."""
        return _times(self.phis[order], self.pair_phis[order], vector)

    def relax(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``(I - e^{h A}) v``, by expm1; exactly 0 at ``h = 0``."""
        return _times(self.decay, self.pair_decay, vector)


def real_propagator(z: Float[Array, " latent"], order: int) -> ModalPropagator:
    """The propagator of real modes.

    Args:
        z: Rates times a step, of either sign, dimensionless.
        order: Highest phi function that will be applied.
    """
    none = jnp.zeros(0, jnp.complex128)
    return ModalPropagator(
        decay=-jnp.expm1(z),
        pair_decay=none,
        phis=jnp.stack([phi(k, z) for k in range(order + 1)]),
        pair_phis=jnp.zeros((order + 1, 0), jnp.complex128),
    )


class ModalOperator(AbstractLinearOperator):
    r"""Modes that do not mix: every phi function is elementwise.

    .. math:: A = \mathrm{diag}(-r_i) \oplus
       \begin{bmatrix} -r_j & \omega_j \\ -\omega_j & -r_j \end{bmatrix} + \alpha I,
       \quad r = e^{a + C p}

    Encoder, decoder and ``f`` absorb any change of basis, so nothing but exact Jordan
    blocks is lost against a dense stable ``A``; each rate keeps its own relative
    precision, over any number of decades.

    Args:
        rates: Initial rates, ``(latent - oscillating,)``, 1/time: those of the real
            modes first, then one per pair.
        oscillating: Number of pairs, two latent variables each.
        shift: Bound ``alpha`` on the real parts, 1/time.
        parameters: Number of parameters the rates depend on, 0 for none.

    Raises:
        ValueError: A rate is not positive, ``shift`` is negative, or there are fewer
            rates than pairs.
    """

    log_rates: Float[Array, " mode"]
    frequencies: Float[Array, " pair"]
    sensitivity: Float[Array, "mode parameter"]
    shift: float = eqx.field(static=True)

    def __init__(
        self,
        rates: NDArray[np.float64],
        *,
        oscillating: int = 0,
        shift: float = 0.0,
        parameters: int = 0,
    ) -> None:
        if shift < 0 or np.any(np.asarray(rates) <= 0) or oscillating > len(rates):
            raise ValueError(
                "rates must be positive, one for each pair at least, and shift at "
                f"least 0, not {rates!r}, {oscillating!r}, {shift!r}"
            )
        self.log_rates = jnp.asarray(np.log(rates), jnp.float64)
        pair_rates = np.asarray(rates)[len(rates) - oscillating :]
        self.frequencies = jnp.asarray(pair_rates, jnp.float64)
        self.sensitivity = jnp.zeros((len(rates), parameters), jnp.float64)
        self.shift = float(shift)

    @property
    def oscillating(self) -> int:
        """Number of oscillating pairs."""
        return self.frequencies.shape[0]

    @property
    def is_elementwise(self) -> bool:
        """True: the modes do not mix."""
        return True

    @property
    def depends_on_parameters(self) -> bool:
        """Whether the rates are functions of the parameters p."""
        return self.sensitivity.shape[1] > 0

    def rates(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, " mode"]:
        """Decay rates of the real modes, then of the pairs, 1/time."""
        log_rates = self.log_rates
        if self.depends_on_parameters and parameters is not None:
            log_rates = log_rates + self.sensitivity @ parameters
        return jnp.exp(log_rates)

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A`` as a dense matrix, 1/time."""
        real, pairs = self._eigenvalues(parameters)
        diagonal = jnp.concatenate([real, jnp.repeat(pairs.real, 2)])
        matrix = jnp.diag(diagonal)
        first = real.shape[0] + 2 * np.arange(self.oscillating)
        # Re + i Im stands for z_1 + i z_2; see _times.
        matrix = matrix.at[first, first + 1].set(-pairs.imag)
        return matrix.at[first + 1, first].set(pairs.imag)

    def propagator(
        self,
        step: Float[Array, ""],
        order: int,
        parameters: Float[Array, " parameter"] | None = None,
    ) -> ModalPropagator:
        """Elementwise ``phi_0(h A) .. phi_order(h A)``."""
        real, pairs = self._eigenvalues(parameters)
        real, pairs = step * real, step * pairs
        return ModalPropagator(
            decay=-jnp.expm1(real),
            pair_decay=-jnp.expm1(pairs),
            phis=jnp.stack([phi(k, real) for k in range(order + 1)]),
            pair_phis=jnp.stack([phi(k, pairs) for k in range(order + 1)]),
        )

    def apply(
        self,
        vector: Float[Array, " latent"],
        parameters: Float[Array, " parameter"] | None = None,
    ) -> Float[Array, " latent"]:
        """``A v``, 1/time."""
        return _times(*self._eigenvalues(parameters), vector)

    def _eigenvalues(
        self, parameters: Float[Array, " parameter"] | None
    ) -> tuple[Float[Array, " real"], Complex[Array, " pair"]]:
        """The real eigenvalues, and one of each conjugate pair."""
        rates = self.rates(parameters)
        real = rates.shape[0] - self.oscillating
        pairs = self.shift - rates[real:] - 1j * self.frequencies
        return self.shift - rates[:real], pairs


def _times(
    real: Float[Array, " real"],
    pairs: Complex[Array, " pair"],
    vector: Float[Array, " latent"],
) -> Float[Array, " latent"]:
    """Elementwise product; a pair ``(z_1, z_2)`` is the number ``z_1 + i z_2``."""
    count = real.shape[0]
    if pairs.shape[0] == 0:
        return real * vector
    turning = vector[count:].reshape(-1, 2)
    turned = pairs * (turning[:, 0] + 1j * turning[:, 1])
    parts = jnp.stack([turned.real, turned.imag], axis=-1).reshape(-1)
    return jnp.concatenate([real * vector[:count], parts])
