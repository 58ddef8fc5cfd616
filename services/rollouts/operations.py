"""What an engine computes, as compiled functions ``(leaves, steps, rows) -> results``.

::

    rollout    x(inputs), of an ensemble its spread    one pass
    latent     z(inputs), x = D(z)                     one pass
    jvp        x,  J v_1 ... J v_k                     one pass, k directions with it
    vjp        x,  J^T w_1 ... J^T w_k                 one pass, k ways back
    hvp        g = J^T w,  H v_1 ... H v_k             H of sum(w * x): forward over
                                                       reverse
    objective  sum(q * (x - y)^2) and its gradient     one pass, one way back

Where the surrogate keeps training samples, all of them give ``distance`` too. Each is
made once for a surrogate's static parts; its leaves are arguments, so that
versions of one architecture differ in data alone. Directions and cotangents have an
axis ``k`` behind that of the rows.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from services.rollouts.plans import COMPILER_OPTIONS, Stepped, Whole
from services.rollouts.request import DIFFERENTIABLE
from services.rollouts.tiles import MOST_KEPT_BYTES
from spnode_core.autoencoder import ResidualAutoencoder
from spnode_core.batched_networks import batched
from spnode_core.ensemble import rollout_and_spread
from spnode_core.networks import transposed
from spnode_core.rollout import decoded, rollout
from spnode_core.stepping import kept_bytes
from spnode_core.surrogate import Surrogate

Values = dict[str, Any]
Operation = Callable[[list[Any], Stepped, Values], Values]


def _inputs(given: Values, group: str = "") -> Values:
    """The inputs, or what is given of a group for them, by name."""
    return {
        name: given[group + name] for name in DIFFERENTIABLE if group + name in given
    }


def turned(surrogate: Surrogate) -> Surrogate:
    """A surrogate whose weights are transposed, but networks of decoders, or back.

    Small tiles read them by columns: there they are not moved any more. Decoders take
    many rows at once, one for each time.
    """
    dynamics, encoder = transposed(surrogate.dynamics), surrogate.autoencoder
    if isinstance(encoder, ResidualAutoencoder):
        encoder = eqx.tree_at(
            lambda e: (e.decoder_network, e.decoder_matrix),
            transposed(encoder),
            (encoder.decoder_network, jnp.swapaxes(encoder.decoder_matrix, -1, -2)),
        )
    return eqx.tree_at(
        lambda s: (s.dynamics, s.autoencoder), surrogate, (dynamics, encoder)
    )


def _states(
    surrogate: Surrogate,
    steps: Stepped,
    inputs: Values,
    *,
    latent: bool = False,
    in_one_piece: bool = True,
    goes_back: bool = False,
) -> Any:
    plan, shared = steps
    kept = kept_bytes(surrogate, len(inputs["x0"]), len(plan.step_kind))
    return rollout(
        surrogate,
        inputs["x0"],
        plan,
        inputs.get("parameters"),
        inputs.get("controls"),
        latent=latent,
        by_size=True,
        in_one_piece=in_one_piece,
        recomputed=goes_back and kept > MOST_KEPT_BYTES,
        shared=shared,
    )


def _along(
    function: Callable[[Any], tuple[Any, Any]], directions: Any
) -> tuple[Any, Any]:
    """What does not depend on the direction, and what does for each ``(row, k, …)``."""
    if jax.tree.leaves(directions)[0].shape[1] == 1:
        same, each = function(jax.tree.map(lambda array: array[:, 0], directions))
        return same, jax.tree.map(lambda array: array[:, None], each)
    return jax.vmap(function, in_axes=1, out_axes=(None, 1))(directions)


def _rollout(surrogate: Surrogate, steps: Stepped, given: Values) -> Values:
    inputs = _inputs(given)
    if surrogate.signature.members == 1:
        return {"x": _states(surrogate, steps, inputs)}
    others = (inputs.get("parameters"), inputs.get("controls"))
    # Always both, so that a row's bits are those of one program.
    x, spread = rollout_and_spread(
        surrogate, inputs["x0"], steps.plan, *others, shared=steps.shared
    )
    return {"x": x, "spread": spread}


def _latent(surrogate: Surrogate, steps: Stepped, given: Values) -> Values:
    inputs = _inputs(given)
    z = _states(surrogate, steps, inputs, latent=True)
    parameters = inputs.get("parameters", jnp.zeros((len(z), 0)))
    x = decoded(batched(surrogate), z, inputs["x0"], parameters)
    return {"x": x, "z": z}


def _jvp(surrogate: Surrogate, steps: Stepped, given: Values) -> Values:
    inputs, directions = _inputs(given), _inputs(given, "tangents.")
    moved = {name: inputs[name] for name in directions}

    def states(moved: Values) -> Any:
        return _states(surrogate, steps, inputs | moved, in_one_piece=False)

    x, tangents = _along(
        lambda direction: jax.jvp(states, (moved,), (direction,)), directions
    )
    return {"x": x, "tangents": tangents}


def _vjp(surrogate: Surrogate, steps: Stepped, given: Values) -> Values:
    states = functools.partial(_states, surrogate, steps, goes_back=True)
    x, pull = jax.vjp(states, _inputs(given))
    _, gradients = _along(
        lambda cotangents: (None, pull(cotangents)[0]), given["cotangents"]
    )
    return {"x": x, **_named("gradients", gradients)}


def _hvp(surrogate: Surrogate, steps: Stepped, given: Values) -> Values:
    inputs, directions = _inputs(given), _inputs(given, "tangents.")
    moved = {name: inputs[name] for name in directions}

    def gradient(moved: Values) -> Values:
        states = functools.partial(_states, surrogate, steps, goes_back=True)
        _, pull = jax.vjp(states, inputs | moved)
        return pull(given["cotangents"])[0]

    gradients, products = _along(
        lambda direction: jax.jvp(gradient, (moved,), (direction,)), directions
    )
    return _named("gradients", gradients) | _named("products", products)


def _objective(surrogate: Surrogate, steps: Stepped, given: Values) -> Values:
    def value(inputs: Values) -> Any:
        x = _states(surrogate, steps, inputs, goes_back=True)
        return jnp.sum(given["weights"] * (x - given["observations"]) ** 2, (1, 2))

    values, pull = jax.vjp(value, _inputs(given))
    (gradients,) = pull(jnp.ones_like(values))
    return {"value": values, **_named("gradients", gradients)}


def _with_distance(
    operation: Callable[[Surrogate, Stepped, Values], Values],
    whole: Whole,
    leaves: list[Any],
    steps: Stepped,
    given: Values,
) -> Values:
    """The results, and how far each row starts from the training samples."""
    surrogate = whole(leaves)
    results = operation(surrogate, steps, given)
    if surrogate.neighbours is None:
        return results
    # With the rollout's networks: XLA then encodes once for both.
    return results | {"distance": distances(batched(surrogate), given)}


def distances(surrogate: Any, given: Any) -> Any:
    """How far each row starts from the training samples, where the surrogate has some.

    Args:
        surrogate: The model.
        given: The inputs of rows by name: ``x0``, maybe ``parameters``.
    """
    x0 = jnp.asarray(given["x0"])
    parameters = jnp.asarray(given.get("parameters", jnp.zeros((len(x0), 0))))
    return jax.vmap(surrogate.distance)(x0, parameters)


def _named(group: str, arrays: Values) -> Values:
    return {f"{group}.{name}": array for name, array in arrays.items()}


def _compiled(
    operation: Callable[[Surrogate, Stepped, Values], Values],
) -> Callable[[Whole], Operation]:
    return lambda whole: jax.jit(
        functools.partial(_with_distance, operation, whole),
        compiler_options=COMPILER_OPTIONS,
    )


OPERATIONS: dict[str, Callable[[Whole], Operation]] = {
    "rollout": _compiled(_rollout),
    "latent": _compiled(_latent),
    "jvp": _compiled(_jvp),
    "vjp": _compiled(_vjp),
    "hvp": _compiled(_hvp),
    "objective": _compiled(_objective),
}
"""Operation to what makes it."""
