"""A model as UM-Bridge sees it: vectors in, one vector out, by what ``config`` says.

::

    x0, parameters, controls -- fixed --> what is open -- packed --> input vectors
    x at the times, or the log-likelihood of observations        --> the output vector

Nothing here depends on the numbers of a call, so one view serves all calls of a config.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from api.protocols.umbridge.config import Config
from api.protocols.umbridge.density import Density
from services.rollouts.request import Arrays, Request
from services.rollouts.served import Served
from services.rollouts.times import control_times, output_times
from services.rollouts.wire import Options, Outputs
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature


@dataclass(frozen=True)
class Slot:
    """An input of a rollout and which of its numbers are open.

    Args:
        name: ``x0``, ``parameters`` or ``controls``.
        labels: Names of its numbers, in the order of ``base``.
        shape: Of the whole.
        base: The fixed numbers, flat, 0 where one is open.
        open: Indices of the open ones.
    """

    name: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    base: np.ndarray
    open: np.ndarray

    def filled(self, values: np.ndarray, *, is_direction: bool = False) -> np.ndarray:
        """The whole with these numbers in open places."""
        if len(self.open) == len(self.base):
            return values.reshape(self.shape)
        whole = np.zeros_like(self.base) if is_direction else self.base.copy()
        whole[self.open] = values
        return whole.reshape(self.shape)


@dataclass(frozen=True)
class View:
    """What a config makes of a model version.

    Args:
        options: What every request says beside its arrays.
        slots: The inputs of a rollout.
        groups: Which slots each input vector fills.
        shared: Arrays that no input changes: times.
        shape: Of ``x``.
        density: The likelihood, where there are observations.
    """

    options: Options
    slots: tuple[Slot, ...]
    groups: tuple[tuple[Slot, ...], ...]
    shared: Arrays
    shape: tuple[int, ...]
    density: Density | None

    @functools.cached_property
    def input_sizes(self) -> list[int]:
        """Length of each input vector."""
        return [sum(len(slot.open) for slot in group) for group in self.groups]

    @property
    def output_sizes(self) -> list[int]:
        """Length of the output vector."""
        return [1 if self.density else math.prod(self.shape)]

    def labels(self) -> list[list[str]]:
        """Names of the numbers of each input vector."""
        return [
            [slot.labels[place] for slot in group for place in slot.open]
            for group in self.groups
        ]

    def arrays(self, vectors: list[np.ndarray]) -> Arrays:
        """The arrays of a rollout from the input vectors."""
        found = {slot.name: slot.base.reshape(slot.shape) for slot in self.slots}
        for group, vector in zip(self.groups, vectors, strict=True):
            for slot, part in _parts(group, vector):
                found[slot.name] = slot.filled(part)
        return found | self.shared

    def tangents(self, index: int, vector: np.ndarray) -> Arrays:
        """Directions of a rollout's inputs from one of an input vector."""
        return {
            f"tangents.{slot.name}": slot.filled(part, is_direction=True)
            for slot, part in _parts(self.groups[index], vector)
        }

    def gathered(self, index: int, by_name: Arrays) -> np.ndarray:
        """What belongs to an input vector, from arrays like a rollout's inputs."""
        parts = [by_name[s.name].ravel()[s.open] for s in self.groups[index]]
        return np.concatenate(parts)


def make_view(served: Served, config: Config, most_times: int) -> View:
    """The view of a version.

    Raises:
        InvalidInput: The config does not fit the version.
    """
    signature = served.signature
    times = _times(config, signature, most_times)
    states = _states(config, signature)
    final = config.times is None
    outputs = Outputs(times="final" if final else "all", states=config.states)
    options = Options(
        model=f"{served.model}/{served.version}",
        outputs=outputs,
        precision=config.precision,
    )
    shared = {"times": times}
    switches = _switches(config, signature)
    if switches is not None:
        shared["control_times"] = switches
    slots = _slots(config, signature, 1 if switches is None else len(switches))
    groups = tuple((slot,) for slot in slots if len(slot.open))
    if not groups:
        raise InvalidInput(
            "config.fixed",
            found="every input",
            expected="at least one number that is null, or an input left out",
        )
    if config.packed:
        groups = (tuple(slot for (slot,) in groups),)
    shape = (len(states),) if final else (len(times), len(states))
    density = Density.of(config, shape)
    return View(options, slots, groups, shared, shape, density)


def _parts(
    group: tuple[Slot, ...], vector: np.ndarray
) -> Iterator[tuple[Slot, np.ndarray]]:
    start = 0
    for slot in group:
        stop = start + len(slot.open)
        yield slot, vector[start:stop]
        start = stop


def _times(config: Config, signature: Signature, most: int) -> np.ndarray:
    if config.times is None:
        is_given = config.t1 is not None
        return np.array([config.t1 if is_given else signature.domain.end])
    if config.t1 is not None:
        raise InvalidInput(
            "config.t1", found=repr(config.t1), expected="nothing beside times"
        )
    options = Options(model="-")
    if isinstance(config.times, list):
        arrays = {"times": np.array(config.times, np.float64)}
        request = Request("rollout", options, arrays)
    else:
        request = Request("rollout", options, {}, config.times)
    try:
        return output_times(request, most)
    except InvalidInput as error:
        raise in_config(error) from error


def _states(config: Config, signature: Signature) -> tuple[str, ...]:
    for place, name in enumerate(config.states or ()):
        if name not in signature.states:
            raise InvalidInput(
                f"config.states[{place}]",
                found=repr(name[:80]),
                expected=f"one of {', '.join(signature.states)}",
            )
    return tuple(config.states or signature.states)


def _switches(config: Config, signature: Signature) -> np.ndarray | None:
    if not signature.controls:
        if config.control_times is not None:
            raise InvalidInput(
                "config.control_times",
                found="times",
                expected="none: this version takes no controls",
            )
        return None
    if config.control_times is None:
        return np.zeros(1)
    times = np.array(config.control_times, np.float64)
    if not times.size:
        raise InvalidInput(
            "config.control_times", found="no times", expected="at least one, 0"
        )
    controls = np.zeros((len(times), len(signature.controls)))
    try:
        return control_times({"controls": controls, "control_times": times}, signature)
    except InvalidInput as error:
        raise in_config(error) from error


def _slots(config: Config, signature: Signature, switches: int) -> tuple[Slot, ...]:
    held = signature.controls
    if switches > 1:
        held = tuple(f"{name}[{k}]" for k in range(switches) for name in held)
    shapes = {
        "x0": (signature.states, (len(signature.states),)),
        "parameters": (signature.parameters, (len(signature.parameters),)),
        "controls": (held, (switches, len(signature.controls))),
    }
    return tuple(
        _slot(name, labels, shape, getattr(config.fixed, name))
        for name, (labels, shape) in shapes.items()
        if labels or getattr(config.fixed, name) is not None
    )


def _slot(
    name: str,
    labels: tuple[str, ...],
    shape: tuple[int, ...],
    fixed: list[float | None] | None,
) -> Slot:
    if fixed is None:
        return Slot(name, labels, shape, np.zeros(len(labels)), np.arange(len(labels)))
    if len(fixed) != len(labels):
        raise InvalidInput(
            f"config.fixed.{name}",
            found=f"{len(fixed)} numbers",
            expected=f"{len(labels)}: {', '.join(labels[:20])}"
            if labels
            else f"nothing: this version takes no {name}",
        )
    base = np.array([0.0 if value is None else value for value in fixed], np.float64)
    places = [place for place, value in enumerate(fixed) if value is None]
    return Slot(name, labels, shape, base, np.array(places, np.intp))


# What canonical requests call it, and what it is here.
_NAMES = {"outputs.states": "states", "weights": "noise", "x0": "times"}


def in_config(error: InvalidInput) -> InvalidInput:
    """An error about a rollout's request, as one about the config that made it."""
    field = error.field.removeprefix("objective.")
    for name, here in _NAMES.items():
        if field.startswith(name):
            field = here + field.removeprefix(name)
    return InvalidInput(f"config.{field}", found=error.found, expected=error.expected)
