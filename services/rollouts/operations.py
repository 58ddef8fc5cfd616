"""What an engine computes, as compiled functions ``(leaves, plan, rows) -> results``.

Each is made once for a surrogate's static parts; its leaves are arguments, so that
versions of one architecture differ in data alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from services.rollouts.request import DIFFERENTIABLE
from spnode_core.rollout import rollout
from spnode_core.timegrid import Plan


def _inputs(given: Any) -> dict[str, Any]:
    return {name: given[name] for name in DIFFERENTIABLE if name in given}


def _forward(static: Any, *, latent: bool = False) -> Callable[..., Any]:
    def forward(arrays: Any, plan: Plan, inputs: dict[str, Any]) -> Any:
        return rollout(
            eqx.combine(arrays, static),
            inputs["x0"],
            plan,
            inputs.get("parameters"),
            inputs.get("controls"),
            latent=latent,
        )

    return forward


def _rollout(static: Any) -> Callable[..., Any]:
    forward = _forward(static)
    return jax.jit(
        lambda arrays, plan, given: {"x": forward(arrays, plan, _inputs(given))}
    )


def _latent(static: Any) -> Callable[..., Any]:
    states, latents = _forward(static), _forward(static, latent=True)
    return jax.jit(
        lambda arrays, plan, given: {
            "x": states(arrays, plan, _inputs(given)),
            "z": latents(arrays, plan, _inputs(given)),
        }
    )


def _jvp(static: Any) -> Callable[..., Any]:
    forward = _forward(static)

    def jvp(arrays: Any, plan: Plan, given: dict[str, Any]) -> dict[str, Any]:
        inputs = _inputs(given)
        tangents = {name: given[f"tangents.{name}"] for name in inputs}
        x, tangent = jax.jvp(
            functools.partial(forward, arrays, plan), (inputs,), (tangents,)
        )
        return {"x": x, "tangents": tangent}

    return jax.jit(jvp)


def _vjp(static: Any) -> Callable[..., Any]:
    forward = _forward(static)

    def vjp(arrays: Any, plan: Plan, given: dict[str, Any]) -> dict[str, Any]:
        x, pull = jax.vjp(functools.partial(forward, arrays, plan), _inputs(given))
        (gradients,) = pull(given["cotangents"])
        named = {f"gradients.{name}": value for name, value in gradients.items()}
        return {"x": x, **named}

    return jax.jit(vjp)


OPERATIONS = {"rollout": _rollout, "latent": _latent, "jvp": _jvp, "vjp": _vjp}
"""Operation to what makes it."""
