"""Surrogates as files: what is saved is what is loaded, verified by a rollout.

Loading builds the skeleton that ``spec.json`` describes, from constructors of this
library only, accepts exactly the arrays that the skeleton has, and repeats the recorded
probe rollout. The container is described in ``artifact_file``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from spnode_core.artifact_file import (
    CARD,
    PARAMETERS,
    PROBE,
    SPEC,
    encode_json,
    file_digest,
    parse_spec,
    read_card,
    read_members,
    read_plots,
    read_spec,
    write_members,
)
from spnode_core.ensemble import Ensemble
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.metrics import state_scale
from spnode_core.normaliser import Normaliser, Scaling
from spnode_core.spec import ArtifactSpec, ScalingKind, Signature, SurrogateSpec
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.tensors import decode_arrays, encode_arrays

__all__ = ["file_digest", "load", "read_card", "read_plots", "read_spec", "save"]

PROBE_TOLERANCE = {"mixed": 1e-4, "float64": 1e-8}
"""Scaled difference allowed between the recorded probe and its repetition.

Another machine rounds differently: float32 networks to 6e-8, which some hundred steps
and a factor of 10 between latent variables and states may make 1e-5 of.
"""
_PROBE_STEPS = 64


def save(
    surrogate: Surrogate,
    path: str | Path,
    *,
    card: dict[str, Any] | None = None,
    plots: Mapping[str, bytes] | None = None,
) -> str:
    """Write a surrogate to one file, the same bytes for the same surrogate and card.

    Args:
        surrogate: What to save.
        path: Where to; by custom it ends in ``.spnode``.
        card: What is known about the surrogate, JSON.
        plots: Pictures of its training, as ``draw_training`` gives them: PNG by name.
            The card says as ``plots`` which there are.

    Returns:
        SHA-256 of the file in hexadecimal: the identity of the artifact.

    Raises:
        ArtifactError: The surrogate's arrays or its rollout are not finite, or a
            picture is no PNG.
    """
    spec = ArtifactSpec(surrogate=surrogate.spec, signature=surrogate.signature)
    arrays = _arrays(surrogate)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ArtifactError(f"{name} holds a number that is not finite")
    probe = _probe_inputs(surrogate)
    probe["x"] = np.asarray(_roll(surrogate, probe))
    if not np.isfinite(probe["x"]).all():
        raise ArtifactError("the surrogate's rollout from its own domain is not finite")
    named = {"plots": sorted(plots)} if plots else {}
    return write_members(
        path,
        {
            SPEC: encode_json(spec.model_dump(mode="json")),
            PARAMETERS: encode_arrays(arrays),
            CARD: encode_json({**(card or {}), **named}),
            PROBE: encode_arrays(probe),
            **{f"plots/{name}.png": data for name, data in (plots or {}).items()},
        },
    )


def load(
    path: str | Path, *, digest: str | None = None, verify: bool = True
) -> Surrogate:
    """Read a surrogate back.

    Args:
        path: The file. It need not come from a trusted place.
        digest: SHA-256 that the file must have.
        verify: Whether to repeat the probe rollout, which compiles it.

    Raises:
        ArtifactError: The file is damaged, forged, too new or of another digest, or
            the surrogate does not repeat its recorded rollout.
        InvalidInput: x64 is off.
    """
    require_x64()
    if digest is not None and (found := file_digest(path)) != digest:
        raise ArtifactError(
            f"{Path(path).name} has SHA-256 {found}, but {digest} is expected"
        )
    members = read_members(path, (SPEC, PARAMETERS, PROBE))
    spec = parse_spec(members[SPEC])
    surrogate = _filled(_skeleton(spec), decode_arrays(members[PARAMETERS], PARAMETERS))
    if verify:
        _verify(surrogate, decode_arrays(members[PROBE], PROBE))
    return surrogate


def _arrays(surrogate: Surrogate) -> dict[str, NDArray[Any]]:
    """Arrays by their path in the tree, e.g. ``.dynamics.linear.log_rates``."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(surrogate, eqx.is_array))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _skeleton(spec: ArtifactSpec) -> Surrogate:
    """A surrogate with shapes in place of arrays; nothing is computed."""
    try:
        normaliser = _skeleton_normaliser(spec.surrogate, spec.signature)
        one = eqx.filter_eval_shape(
            lambda key: Surrogate.create(
                spec.surrogate, spec.signature, normaliser, key=key
            ),
            jax.random.key(0),
        )
        members = spec.signature.members
        return Ensemble.skeleton(one, members) if members > 1 else one
    except (InvalidInput, KeyError, IndexError) as error:
        raise ArtifactError(f"{SPEC} describes no surrogate: {error}") from error


def _skeleton_normaliser(spec: SurrogateSpec, signature: Signature) -> Normaliser:
    linear: list[ScalingKind] = ["linear"] * len(spec.conserved)
    logs: list[ScalingKind] = ["log"] * len(spec.logarithms)

    def scaling(names: tuple[str, ...]) -> Scaling:
        kinds: list[ScalingKind] = [spec.normalisation[name] for name in names]
        return Scaling.skeleton(kinds)

    return Normaliser(
        states=scaling(signature.states),
        sums=Scaling.skeleton(linear),
        parameters=scaling(signature.parameters),
        controls=scaling(signature.controls),
        logarithms=Scaling.skeleton(logs) if logs else None,
    )


def _filled(skeleton: Surrogate, arrays: dict[str, NDArray[Any]]) -> Surrogate:
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    shapes, static = eqx.partition(skeleton, is_shape)
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    if set(expected) != set(arrays):
        odd = sorted(set(expected) ^ set(arrays))
        raise ArtifactError(f"{PARAMETERS} lacks or adds {odd[:4]}")
    for name, leaf in expected.items():
        array = arrays[name]
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ArtifactError(
                f"{PARAMETERS}: {name} is {array.dtype} {array.shape}, but the spec "
                f"needs {leaf.dtype} {leaf.shape}"
            )
    filled = jax.tree.unflatten(tree, [jnp.asarray(arrays[name]) for name in expected])
    return eqx.combine(filled, static)


def _probe_inputs(surrogate: Surrogate) -> dict[str, NDArray[np.float64]]:
    """Two points of the domain, and times on and off the step grid."""
    signature = surrogate.signature
    domain = signature.domain
    part = np.array([[0.25], [0.5]])

    def inside(lower: tuple[float, ...], upper: tuple[float, ...]) -> Any:
        low, high = np.array(lower), np.array(upper)
        return low + part * (high - low)

    grid = surrogate.grid.extended(domain.end)[: _PROBE_STEPS + 1]
    between = (grid[:-1] + grid[1:])[:: max(1, len(grid) // 8)] / 2
    times = np.union1d(grid[:: max(1, len(grid) // 8)], between)
    probe = {"x0": inside(domain.lower, domain.upper), "times": times}
    if signature.parameters:
        probe["parameters"] = inside(domain.parameters_lower, domain.parameters_upper)
    if signature.controls:
        controls = inside(domain.controls_lower, domain.controls_upper)
        probe["controls"] = np.stack([controls, controls[::-1]], axis=1)
        probe["control_times"] = np.array([0.0, float(times[len(times) // 2])])
    return probe


def _roll(surrogate: Surrogate, probe: dict[str, NDArray[Any]]) -> Any:
    return surrogate.rollout(
        probe["x0"],
        probe["times"],
        parameters=probe.get("parameters"),
        controls=probe.get("controls"),
        control_times=probe.get("control_times"),
    )


def _verify(surrogate: Surrogate, probe: dict[str, NDArray[Any]]) -> None:
    expected = set(_probe_inputs(surrogate)) | {"x"}
    if set(probe) != expected:
        raise ArtifactError(f"{PROBE} holds {sorted(probe)}, not {sorted(expected)}")
    try:
        states = np.asarray(_roll(surrogate, probe))
    except InvalidInput as error:
        raise ArtifactError(f"{PROBE} is no rollout: {error}") from error
    if states.shape != probe["x"].shape:
        raise ArtifactError(f"{PROBE}: x has shape {probe['x'].shape}")
    difference = np.abs(states - probe["x"]) / state_scale(surrogate)
    allowed = PROBE_TOLERANCE[surrogate.spec.precision]
    largest = float(difference.max(initial=0.0))
    if not largest <= allowed:
        raise ArtifactError(
            f"the surrogate differs from its recorded rollout by {largest:.3g} "
            f"(scaled), more than {allowed:g}: the file is damaged, or this "
            "installation computes differently"
        )
