"""UM-Bridge's four computations, each as operations of the engine.

::

    Evaluate         x                    rollout      log p    objective
    Gradient         J^T sens             vjp                   objective
    ApplyJacobian    J vec                jvp                   objective
    ApplyHessian     (sens . x)'' vec     hvp                   jvp, then vjp and hvp
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from starlette.types import Receive

from api.computing import compute
from api.dependencies import Gateway
from api.protocols.umbridge.body import Call
from api.protocols.umbridge.density import Density
from api.protocols.umbridge.view import View, in_config
from services.rollouts.answer import Fields
from services.rollouts.request import Arrays, Operation, Request
from services.rollouts.served import Served
from spnode_core.errors import InvalidInput


@dataclass(frozen=True)
class Calling:
    """A call with all that it takes to answer it."""

    gateway: Gateway
    served: Served
    view: View
    call: Call
    deadline: float
    receive: Receive

    def inputs(self) -> Arrays:
        """The arrays of a rollout."""
        return self.view.arrays(self.call.vectors(self.view.input_sizes))

    def input_index(self, field: str) -> int:
        """Which input vector a field means."""
        return self.call.index(field, len(self.view.groups))

    def sens(self) -> np.ndarray:
        """Weights of the output vector."""
        return self.call.vector("sens", self.view.output_sizes[0])

    def vec(self, index: int) -> np.ndarray:
        """A direction of an input vector."""
        return self.call.vector("vec", self.view.input_sizes[index])

    async def run(self, operation: Operation, arrays: Arrays) -> Fields:
        """The fields of an answer.

        Raises:
            InvalidInput: The version does not take what the config says.
            RolloutFailed: Something is not finite.
        """
        kind = "misfit" if operation == "objective" else None
        request = Request(operation, self.view.options, arrays, objective=kind)
        try:
            computed = await compute(
                self.gateway,
                request,
                self.served,
                deadline=self.deadline,
                receive=self.receive,
            )
        except InvalidInput as error:
            raise in_config(error) from error
        return computed.fields()


async def evaluate(calling: Calling) -> list[np.ndarray]:
    """The output vectors."""
    density, arrays = calling.view.density, calling.inputs()
    if density is None:
        fields = await calling.run("rollout", arrays)
        return [fields["x"].ravel()]
    fields = await calling.run("objective", arrays | density.objective())
    return [np.array([density.constant - fields["value"]])]


async def gradient(calling: Calling) -> np.ndarray:
    """The gradient of ``sens . output`` by an input vector."""
    view, arrays = calling.view, calling.inputs()
    calling.call.index("outWrt", 1)
    index = calling.input_index("inWrt")
    sens = calling.sens()
    if view.density is None:
        arrays["cotangents"] = sens.reshape(view.shape)
        fields = await calling.run("vjp", arrays)
        return view.gathered(index, fields["vjp"])
    return sens[0] * await _slope(calling, view.density, arrays, index)


async def apply_jacobian(calling: Calling) -> np.ndarray:
    """The derivative of the output along ``vec``."""
    view, arrays = calling.view, calling.inputs()
    calling.call.index("outWrt", 1)
    index = calling.input_index("inWrt")
    vec = calling.vec(index)
    if view.density is None:
        fields = await calling.run("jvp", arrays | view.tangents(index, vec))
        return fields["jvp"].ravel()
    slope = await _slope(calling, view.density, arrays, index)
    return np.array([slope @ vec])


async def apply_hessian(calling: Calling) -> np.ndarray:
    """The derivative along ``vec`` of the gradient of ``sens . output``."""
    view, arrays = calling.view, calling.inputs()
    calling.call.index("outWrt", 1)
    first, second = calling.input_index("inWrt1"), calling.input_index("inWrt2")
    sens, tangents = calling.sens(), view.tangents(second, calling.vec(second))
    if view.density is None:
        arrays["cotangents"] = sens.reshape(view.shape)
        fields = await calling.run("hvp", arrays | tangents)
        return view.gathered(first, fields["hvp"])
    # J^T W J vec, and the curvature of the states weighted by the slope.
    moved = await calling.run("jvp", arrays | tangents)
    bent = -sens[0] * view.density.weights * moved["jvp"]
    back = await calling.run("vjp", arrays | {"cotangents": bent})
    slope = sens[0] * view.density.slope(moved["x"])
    curved = await calling.run("hvp", arrays | tangents | {"cotangents": slope})
    return view.gathered(first, back["vjp"]) + view.gathered(first, curved["hvp"])


async def _slope(
    calling: Calling, density: Density, arrays: Arrays, index: int
) -> np.ndarray:
    """The gradient of the log-likelihood by an input vector."""
    fields = await calling.run("objective", arrays | density.objective())
    return -calling.view.gathered(index, fields["gradient"])


COMPUTED: dict[
    str, Callable[[Calling], Awaitable[np.ndarray] | Awaitable[list[np.ndarray]]]
] = {
    "Evaluate": evaluate,
    "Gradient": gradient,
    "ApplyJacobian": apply_jacobian,
    "ApplyHessian": apply_hessian,
}
"""By the name of the route."""
