"""The surrogate: encoder, latent dynamics, integrator, decoder and their scalings."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike, DTypeLike, NDArray

from spnode_core.autoencoder import (
    AbstractAutoencoder,
    Directions,
    NoAutoencoder,
    PODAutoencoder,
    ResidualAutoencoder,
)
from spnode_core.certificates import certify
from spnode_core.constraints import AbstractConstraint, create_constraint
from spnode_core.dynamics import Dynamics
from spnode_core.errors import InvalidInput
from spnode_core.fixed_times import FixedTimes, check_rows, compiled_rollout
from spnode_core.inputs import batched_inputs
from spnode_core.linear.initialise import create_linear
from spnode_core.neighbours import Neighbours
from spnode_core.networks import Network, changed
from spnode_core.nonlinear.bilinear import BilinearOperator
from spnode_core.nonlinear.initialise import create_nonlinear
from spnode_core.normaliser import Normaliser, picked
from spnode_core.spec import (
    DataStepsSpec,
    NoAutoencoderSpec,
    NoNonlinearSpec,
    PODSpec,
    Signature,
    SurrogateSpec,
)
from spnode_core.timegrid import TimeGrid


class Surrogate(eqx.Module):
    """``z = E(x, p), z' = A(p) z + f(z, u, p), x = D(z, p)`` and its time stepping.

    Args:
        spec: The resolved description.
        signature: Names, units, sizes and domain.
        constraint: What the decoder's outputs become states through.
        normaliser: Scalings; never trained.
        autoencoder: Encoder and decoder.
        dynamics: The latent dynamics.
        neighbours: Some training samples, encoded; never trained.

    Source:
        Paper, (2).
    """

    spec: SurrogateSpec = eqx.field(static=True)
    signature: Signature = eqx.field(static=True)
    constraint: AbstractConstraint = eqx.field(static=True)
    normaliser: Normaliser
    autoencoder: AbstractAutoencoder
    dynamics: Dynamics
    neighbours: Neighbours | None = None

    @classmethod
    def create(
        cls,
        spec: SurrogateSpec,
        signature: Signature,
        normaliser: Normaliser,
        *,
        key: PRNGKeyArray,
        directions: Directions | None = None,
    ) -> "Surrogate":
        """An untrained surrogate with random networks.

        Args:
            spec: Description with latent size, rates and steps resolved.
            signature: Names, units, sizes and domain.
            normaliser: Scalings fitted to the data, or a skeleton to be filled.
            key: Source of the initial weights.
            directions: Principal directions of the normalised states, which a POD
                keeps and a smaller latent space starts from.

        Raises:
            InvalidInput: x64 is off, or parts of the spec do not fit each other.
        """
        require_x64()
        latent = signature.latent
        _check_resolved(spec, signature)
        constraint = create_constraint(
            conserved_matrix(spec, signature.states),
            positive=spec.positive,
            sizes=_sizes(signature),
            names=signature.states,
        )
        dtype = jnp.float32 if spec.precision == "mixed" else jnp.float64
        encoder_key, dynamics_key = jax.random.split(key)
        parameters, controls = len(signature.parameters), len(signature.controls)
        autoencoder = _create_autoencoder(
            spec, signature, constraint, directions, jnp.dtype(dtype), encoder_key
        )
        dynamics = Dynamics(
            create_linear(spec.linear, latent=latent, parameters=parameters),
            create_nonlinear(
                spec.nonlinear,
                latent=latent,
                others=controls + parameters,
                dtype=jnp.dtype(dtype),
                key=dynamics_key,
            ),
        )
        kept = signature.domain.neighbours
        neighbours = Neighbours.skeleton(kept, latent) if kept else None
        return cls(
            spec, signature, constraint, normaliser, autoencoder, dynamics, neighbours
        )

    @property
    def grid(self) -> TimeGrid:
        """The model's own step grid, measured from the start of a rollout."""
        steps = self.spec.steps
        assert not isinstance(steps, DataStepsSpec)
        return TimeGrid.from_spec(steps)

    def prepared(self) -> "Surrogate":
        """The surrogate with what does not change along a rollout worked out once."""
        return eqx.tree_at(lambda s: s.dynamics, self, self.dynamics.prepared())

    def conserved_sums(self, x: Float[Array, " state"]) -> Float[Array, " sum"]:
        """The conserved sums of a state, in physical units."""
        # Not a product: small ones are operations of their own.
        matrix = conserved_matrix(self.spec, self.signature.states)
        return jnp.sum(matrix * x[None], axis=1)

    def encode(
        self, x: Float[Array, " state"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " latent"]:
        """Latent state of one state, both given in physical units."""
        features = [
            self.normaliser.states.normalise(x),
            self.normaliser.sums.normalise(self.conserved_sums(x)),
            self.normaliser.parameters.normalise(parameters),
        ]
        if self.normaliser.logarithms is not None:
            index = self.spec.logarithm_columns(self.signature.states)
            features.append(self.normaliser.logarithms.normalise(picked(x, index)))
        return self.autoencoder.encode(jnp.concatenate(features))

    def distance(
        self, x: Float[Array, " state"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, ""]:
        """How far a state is from all training samples, above 1 if farther than usual.

        Raises:
            ValueError: The surrogate keeps no training samples.
        """
        if self.neighbours is None:
            raise ValueError("the surrogate keeps no training samples")
        return self.neighbours.distance(self.encode(x, parameters))

    def decode(
        self,
        z: Float[Array, " latent"],
        sums: Float[Array, " sum"],
        parameters: Float[Array, " parameter"],
    ) -> Float[Array, " state"]:
        """One state, physical units, with the given conserved sums."""
        p = self.normaliser.parameters.normalise(parameters)
        outputs = self.autoencoder.decode(z, p)
        return self.constraint.states(outputs, sums, self.normaliser.states)

    def rollout(
        self,
        x0: ArrayLike,
        times: ArrayLike,
        *,
        parameters: ArrayLike | None = None,
        controls: ArrayLike | None = None,
        control_times: ArrayLike | None = None,
    ) -> Float[Array, "*batch time state"]:
        """States at the given times.

        Args:
            x0: Initial states, ``(state,)`` or ``(batch, state)``, physical units.
            times: Output times from the start of the rollout, ``(time,)``, or
                ``(batch, time)`` where each row has its own; at least 0 and not
                decreasing; concrete numbers.
            parameters: ``(parameter,)`` or ``(batch, parameter)``, where the model has
                parameters.
            controls: ``(interval, control)`` or ``(batch, interval, control)``, where
                it has controls; each value holds until the next control time.
            control_times: Start of each interval, ``(interval,)``, from 0.

        Returns:
            ``(time, state)``, or ``(batch, time, state)`` for a batch; float64.
            Differentiable in x0, parameters and controls.

        Raises:
            InvalidInput: A shape, number or time that the model does not take.
        """
        given = (x0, times, parameters, controls, control_times)
        single, inputs = self.planned(*given)
        states = compiled_rollout(self, *inputs)
        return states[0] if single else states

    def at(
        self, times: ArrayLike, control_times: ArrayLike | None = None
    ) -> FixedTimes:
        """The rollout at some times, for many calls: ``surrogate.at(times)(x0)``.

        What depends on the times alone is worked out here, once: of a dense linear part
        that is most of a rollout.

        Args:
            times: As of :meth:`rollout`.
            control_times: Likewise.

        Raises:
            InvalidInput: A time that the model does not take.
        """
        require_x64()
        return FixedTimes.of(self, self.grid.plan(times, control_times), control_times)

    def planned(
        self,
        x0: ArrayLike,
        times: ArrayLike,
        parameters: ArrayLike | None,
        controls: ArrayLike | None,
        control_times: ArrayLike | None,
    ) -> tuple[bool, tuple[Any, ...]]:
        """Whether one row was given, and what ``spnode_core.rollout`` takes for it.

        Raises:
            InvalidInput: A shape, number or time that the model does not take.
        """
        require_x64()
        single, inputs = batched_inputs(
            self.signature, x0, parameters, controls, control_times
        )
        plan = self.grid.plan(times, control_times)
        check_rows(plan, len(inputs[0]))
        return single, (inputs[0], plan, *inputs[1:])

    def by_member(self, function: Callable[..., Any], *others: Any) -> Any:
        """A function of the only member, with a leading axis of members.

        Args:
            function: Of a surrogate, and of the member's share of the others.
            *others: Trees of arrays that have such an axis.
        """
        own = jax.tree.map(lambda leaf: leaf[0], others)
        return jax.tree.map(lambda leaf: leaf[None], function(self, *own))

    def certificate(self) -> dict[str, object]:
        """What is proved about this surrogate, JSON-able; see ``certificates``."""
        return certify(self)


def require_x64() -> None:
    """Refuse to compute where JAX would silently round float64 to float32.

    Raises:
        InvalidInput: ``jax_enable_x64`` is off.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise InvalidInput(
            "jax_enable_x64",
            found="False",
            expected="True, since stiff rates need float64: call "
            'jax.config.update("jax_enable_x64", True) first',
        )


def conserved_matrix(
    spec: SurrogateSpec, states: tuple[str, ...]
) -> NDArray[np.float64]:
    """Coefficients of the conserved sums, ``(sum, state)``.

    Raises:
        InvalidInput: A sum names a state that there is not.
    """
    matrix = np.zeros((len(spec.conserved), len(states)))
    for row, (name, terms) in enumerate(spec.conserved.items()):
        for state, coefficient in terms.items():
            if state not in states:
                raise InvalidInput(
                    f"surrogate.conserved.{name}",
                    found=f"the state {state!r}",
                    expected=f"names among {', '.join(states)}",
                )
            matrix[row, states.index(state)] = coefficient
    return matrix


def _create_autoencoder(
    spec: SurrogateSpec,
    signature: Signature,
    constraint: AbstractConstraint,
    directions: Directions | None,
    dtype: jnp.dtype,
    key: PRNGKeyArray,
) -> AbstractAutoencoder:
    states, parameters = len(signature.states), len(signature.parameters)
    latent = signature.latent
    if isinstance(spec.autoencoder, NoAutoencoderSpec):
        return NoAutoencoder(states)
    if isinstance(spec.autoencoder, PODSpec):
        if directions is None:
            modes = spec.autoencoder.modes or latent
            directions = Directions.skeleton(modes, states)
        return PODAutoencoder(
            spec.autoencoder,
            directions,
            latent=latent,
            parameters=parameters,
            dtype=dtype,
            key=key,
        )
    return ResidualAutoencoder(
        spec.autoencoder,
        features=states + len(spec.conserved) + parameters + len(spec.logarithms),
        parameters=parameters,
        free=constraint.free,
        latent=latent,
        dtype=dtype,
        key=key,
        basis=None if directions is None else directions.vectors,
    )


def trainable(surrogate: Surrogate) -> Surrogate:
    """A tree of booleans: True at the arrays that training may change."""
    flags = jax.tree.map(eqx.is_inexact_array, surrogate)
    fixed = jax.tree.map(lambda _: False, surrogate.normaliser)
    flags = eqx.tree_at(lambda s: s.normaliser, flags, fixed)
    if surrogate.neighbours is not None:
        none = jax.tree.map(lambda _: False, surrogate.neighbours)
        flags = eqx.tree_at(lambda s: s.neighbours, flags, none)
    if not isinstance(surrogate.autoencoder, PODAutoencoder):
        return flags
    still = Directions(False, False, False)  # type: ignore[arg-type]
    return eqx.tree_at(lambda s: s.autoencoder.directions, flags, still)


def cast_networks(surrogate: Surrogate, dtype: DTypeLike) -> Surrogate:
    """The surrogate with its networks in another dtype; all else stays float64."""

    def cast(network: object) -> object:
        return jax.tree.map(
            lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf,
            network,
        )

    return changed(surrogate, (Network, BilinearOperator), cast)


def _sizes(signature: Signature) -> NDArray[np.float64]:
    domain = signature.domain
    return np.maximum(np.abs(domain.lower), np.abs(domain.upper)) + 1e-300


def _check_resolved(spec: SurrogateSpec, signature: Signature) -> None:
    latent = signature.latent
    if spec.latent != latent:
        raise InvalidInput(
            "surrogate.latent", found=repr(spec.latent), expected=f"{latent}"
        )
    if isinstance(spec.steps, DataStepsSpec):
        raise InvalidInput(
            "surrogate.steps", found="kind 'data'", expected="a resolved grid"
        )
    if isinstance(spec.nonlinear, NoNonlinearSpec) and signature.controls:
        raise InvalidInput(
            "surrogate.nonlinear.kind",
            found="'none', which controls do not act on",
            expected="another kind, where the data has controls",
        )
    spec.logarithm_columns(signature.states)
    states = len(signature.states)
    if isinstance(spec.autoencoder, NoAutoencoderSpec) and latent != states:
        raise InvalidInput(
            "surrogate.latent",
            found=str(latent),
            expected=f"{states}, the number of states, where there is no autoencoder",
        )
