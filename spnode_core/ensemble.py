r"""Ensembles: members of one description, trained apart, that are one model.

.. math:: \bar x = \frac1m \sum_i x_i, \qquad
   s = \Big(\frac{1}{m - 1} \sum_i (x_i - \bar x)^2\Big)^{1/2}

of the members' states, physical units. The mean keeps conserved sums and positivity,
which are linear; it is no rollout of one dynamics, so what belongs to a latent space is
a thing of one member.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from spnode_core.certificates.members import of_all_members
from spnode_core.errors import InvalidInput
from spnode_core.rollout import Shared, rollouts_by_member
from spnode_core.surrogate import Surrogate

# What members differ in; the rest they share.
_OWN = ("autoencoder", "dynamics", "neighbours")


class Ensemble(Surrogate):
    """Several surrogates whose states are averaged.

    Arrays of autoencoder, dynamics and neighbours have a leading axis of members;
    ``ensemble_of`` makes one.
    """

    @classmethod
    def skeleton(cls, one: Surrogate, members: int) -> "Ensemble":
        """An ensemble of shapes, from one member's."""

        def stacked(leaf: Any) -> Any:
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                return leaf
            return jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype)

        return cls._from(one, members, jax.tree.map(stacked, _own(one)))

    @classmethod
    def _from(cls, one: Surrogate, members: int, own: Any) -> "Ensemble":
        signature = one.signature.model_copy(update={"members": members})
        return cls(one.spec, signature, one.constraint, one.normaliser, *own)

    def by_member(self, function: Callable[..., Any], *others: Any) -> Any:
        """Arrays that a function gives of each member, with a leading axis of members.

        One after another in one program: products under ``vmap`` would round a row by
        its place in the batch.

        Args:
            function: Of a member, and of its share of the others.
            *others: Trees of arrays that have such an axis.
        """
        arrays, static = eqx.partition(_own(self), eqx.is_array)

        def one(given: Any) -> Any:
            arrays, own = given
            return function(self._member(eqx.combine(arrays, static)), *own)

        return jax.lax.map(one, (arrays, others))

    def member(self, number: int) -> Surrogate:
        """One member as a surrogate of its own, without the ensemble's intervals."""
        members = self.signature.members
        if not 0 <= number < members:
            raise InvalidInput(
                "member", found=repr(number), expected=f"0 to {members - 1}"
            )
        take = lambda leaf: leaf[number] if eqx.is_array(leaf) else leaf  # noqa: E731
        return self._member(jax.tree.map(take, _own(self)))

    def _member(self, own: Any) -> Surrogate:
        alone = {"members": 1, "intervals": None}
        signature = self.signature.model_copy(update=alone)
        return Surrogate(self.spec, signature, self.constraint, self.normaliser, *own)

    def rollout_spread(
        self,
        x0: ArrayLike,
        times: ArrayLike,
        *,
        parameters: ArrayLike | None = None,
        controls: ArrayLike | None = None,
        control_times: ArrayLike | None = None,
    ) -> Float[Array, "*batch time state"]:
        """Standard deviation over the members' states, of the shape of a rollout.

        It tells where the members disagree, and is no calibrated interval: what all of
        them have wrong it does not show.

        Args:
            x0: As of :meth:`rollout`, and so are the others.
            times: Output times.
            parameters: Parameters, where the model has some.
            controls: Controls, where it has some.
            control_times: When they switch.

        Raises:
            InvalidInput: A shape, number or time that the model does not take.
        """
        given = (x0, times, parameters, controls, control_times)
        single, inputs = self.planned(*given)
        found = _compiled_spread(self, *inputs)
        return found[0] if single else found

    def distance(
        self, x: Float[Array, " state"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, ""]:
        """How far a state is from all training samples: the members' mean.

        Raises:
            ValueError: The members keep no training samples.
        """
        return self.by_member(lambda one: one.distance(x, parameters)).mean()

    def certificate(self) -> dict[str, object]:
        """What is proved about every member, JSON-able; see ``certificates``."""
        return of_all_members([one.certificate() for one in members_of(self)])

    def prepared(self) -> "Ensemble":
        """The ensemble with what no rollout changes worked out once, in each member."""
        own = self.by_member(lambda one: one.prepared().dynamics)
        return eqx.tree_at(lambda each: each.dynamics, self, own)

    def encode(self, x: object, parameters: object) -> NoReturn:
        """Refused: only a member has latent states."""
        _refuse(self)

    def decode(self, z: object, sums: object, parameters: object) -> NoReturn:
        """Refused: only a member has latent states."""
        _refuse(self)


def ensemble_of(members: Sequence[Surrogate]) -> Surrogate:
    """The members as one model; one alone is a model already.

    Args:
        members: Surrogates of one description, signature and normaliser.
    """
    first = members[0]
    if len(members) == 1:
        return first
    stack = lambda *each: jnp.stack(each) if eqx.is_array(each[0]) else each[0]  # noqa: E731
    own = jax.tree.map(stack, *(_own(one) for one in members))
    return Ensemble._from(first, len(members), own)


def members_of(surrogate: Surrogate) -> list[Surrogate]:
    """The members of an ensemble; a surrogate is its own only one."""
    if not isinstance(surrogate, Ensemble):
        return [surrogate]
    return [surrogate.member(i) for i in range(surrogate.signature.members)]


def _mean_and_spread(
    states: Float[Array, "member batch time state"],
) -> tuple[Float[Array, "batch time state"], Float[Array, "batch time state"]]:
    """Mean and standard deviation over members, wherever their values are finite."""
    mean = states.mean(axis=0)
    apart = jnp.abs(states - mean[None])
    # Squares of large numbers would overflow, those of small ones vanish.
    largest = apart.max(axis=0)
    unit = jnp.where(largest > 0, largest, 1.0)
    squares = jnp.sum((apart / unit[None]) ** 2, axis=0)
    return mean, unit * jnp.sqrt(squares / (len(states) - 1))


def rollout_and_spread(
    surrogate: Surrogate, *inputs: Any, shared: Shared | None = None
) -> tuple[Float[Array, "batch time state"], Float[Array, "batch time state"]]:
    """Mean and standard deviation over members of what ``rollout`` computes.

    Args:
        surrogate: An ensemble.
        *inputs: As of ``spnode_core.rollout.rollout``.
        shared: Likewise.
    """
    return _mean_and_spread(
        rollouts_by_member(surrogate, *inputs, shared=shared, by_size=True)
    )


@eqx.filter_jit
def _compiled_spread(
    ensemble: Ensemble, *inputs: Any
) -> Float[Array, "batch time state"]:
    return rollout_and_spread(ensemble, *inputs)[1]


def _own(surrogate: Surrogate) -> tuple[Any, ...]:
    return tuple(getattr(surrogate, name) for name in _OWN)


def _refuse(ensemble: Ensemble) -> NoReturn:
    raise InvalidInput(
        "surrogate",
        found=f"an ensemble of {ensemble.signature.members} members",
        expected="one of its members, as ensemble.member(0) gives it: each has latent "
        "variables of its own",
    )
