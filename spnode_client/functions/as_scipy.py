"""The rollout in the service for SciPy's optimisers: residuals, Jacobian, gradient.

::

    least_squares(f.fun, f.start, jac=f.jac)             (x - y) / noise
    minimize(f.value_and_gradient, f.start, jac=True)    half their sum of squares

Both take ``bounds=f.bounds``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spnode_client.arrays import real_floats
from spnode_client.functions.served import ServedRollout

if TYPE_CHECKING:
    from scipy.optimize import Bounds

    from spnode_client.model import Model

Place = tuple[int, ...]
"""Of a number in its input: ``(entry,)``, of controls ``(0, entry)``."""


@dataclass
class ScipyFunctions:
    """Functions of one vector: the entries of the inputs that vary.

    Attributes:
        names: What each entry of the vector is.
        start: The vector at the inputs that were given.
    """

    names: tuple[str, ...]
    start: np.ndarray
    _box: tuple[np.ndarray, np.ndarray] = field(repr=False)
    _rollout: ServedRollout = field(repr=False)
    _inputs: tuple[np.ndarray, ...] = field(repr=False)
    _places: tuple[tuple[int, Place], ...] = field(repr=False)
    _observed: np.ndarray = field(repr=False)
    _kept: np.ndarray = field(repr=False)
    _scale: np.ndarray = field(repr=False)
    _last: tuple[bytes, np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def bounds(self) -> "Bounds":
        """Of the training data, as ``least_squares`` and ``minimize`` both read them.

        A plain pair would be ``(lower, upper)`` to the one, and to the other the least
        and the most of each entry, which two entries make the same shape.
        """
        from scipy.optimize import Bounds

        lower, upper = self._box
        # Numbers are what its annotations know; arrays are what it is for.
        return Bounds(lower, upper)  # pyright: ignore[reportArgumentType]

    def fun(self, vector: Any) -> np.ndarray:
        """Residuals ``(x - y) / noise`` where there are observations, else ``x``."""
        return self._asked(vector)[0]

    def jac(self, vector: Any) -> np.ndarray:
        """Their Jacobian, ``(residual, entry)``, of the same request as ``fun``."""
        return self._asked(vector)[1]

    def value_and_gradient(self, vector: Any) -> tuple[float, np.ndarray]:
        """Half the sum of squared residuals, and its gradient.

        Where the rollout fails and that is masked, infinity: NaN is below no bound, and
        would be taken for a step forward.
        """
        residuals, jacobian = self._asked(vector)
        value = 0.5 * float(residuals @ residuals)
        return np.inf if np.isnan(value) else value, jacobian.T @ residuals

    def inputs(self, vector: Any) -> dict[str, np.ndarray]:
        """The inputs of the rollout that a vector stands for, by name."""
        given = self._filled(vector)
        return dict(zip(self._rollout.names, given, strict=True))

    def _filled(self, vector: Any) -> tuple[np.ndarray, ...]:
        values = real_floats(vector, "vector")
        if values.shape != self.start.shape:
            raise ValueError(
                f"vector: found an array of shape {values.shape}; expected "
                f"{len(self.names)} numbers: {', '.join(self.names)}"
            )
        given = tuple(each.copy() for each in self._inputs)
        for (number, entry), value in zip(self._places, values, strict=True):
            given[number][entry] = value
        return given

    def _asked(self, vector: Any) -> tuple[np.ndarray, np.ndarray]:
        key = real_floats(vector).tobytes()
        # Threads share it: what one of them has found stays in its own hands.
        last = self._last
        if last is None or last[0] != key:
            places = [(self._rollout.names[n], entry) for n, entry in self._places]
            by = list(dict.fromkeys(name for name, _ in places))
            x, jacobians = self._rollout.jacobian(self._filled(vector), by)
            columns = [jacobians[name][..., *entry] for name, entry in places]
            residuals = ((x - self._observed) / self._scale)[self._kept]
            stacked = np.stack([(c / self._scale)[self._kept] for c in columns], -1)
            self._last = last = (key, residuals, stacked)
        # Optimisers may write into what they are given.
        return last[1].copy(), last[2].copy()


def scipy_functions(
    model: "Model",
    x0: Any,
    times: Any,
    parameters: Any = None,
    *,
    vary: str | Sequence[str] = ("x0",),
    observations: Any = None,
    noise: Any = 1.0,
    states: Sequence[str] | None = None,
    precision: str | None = None,
    controls: Any = None,
    control_times: Any = None,
    on_error: str | None = None,
    timeout_s: float | None = None,
) -> ScipyFunctions:
    """The functions of ``Model.as_scipy``.

    Raises:
        ValueError: A name is unknown, a shape does not fit, noise is not positive, or
            ``timeout_s`` is no number of seconds.
    """
    rollout = model.at(
        times,
        control_times,
        states=states,
        precision=precision,
        on_error=on_error,
        timeout_s=timeout_s,
    )
    given = {"x0": x0, "parameters": parameters, "controls": controls}
    inputs = tuple(_floats(name, given[name]) for name in rollout.names)
    entries = {"x0": model.states, "parameters": model.parameters}
    for name, names in entries.items():
        if name not in rollout.names:
            continue
        found = inputs[rollout.names.index(name)].shape
        if found != (len(names),):
            raise ValueError(
                f"{name}: found an array of shape {found}; expected {len(names)} "
                f"numbers: {', '.join(names)}"
            )
    rollout.check_shapes([each.shape for each in inputs])
    for name, each, rank in zip(rollout.names, inputs, rollout.ranks, strict=True):
        # One trajectory: controls of several would be refused by the service alone.
        if each.ndim != rank:
            raise ValueError(
                f"{name}: found an array of shape {each.shape}; expected "
                f"(interval, {each.shape[-1]})"
            )
    places, names = _places(rollout, _entries(model, rollout, inputs), vary)
    shape = rollout.output_shape
    observed = np.zeros(shape)
    if observations is not None:
        observed = _fitting("observations", observations, shape)
    scale = _fitting("noise", noise, shape)
    if not (scale > 0).all():
        raise ValueError(f"noise: found {scale.min():g}; expected numbers above 0")
    return ScipyFunctions(
        names=names,
        start=np.array([inputs[number][entry] for number, entry in places]),
        _box=_box(model, rollout, places),
        _rollout=rollout,
        _inputs=inputs,
        _places=places,
        _observed=np.nan_to_num(observed),
        _kept=~np.isnan(observed),
        _scale=scale,
    )


def _entries(
    model: "Model", rollout: ServedRollout, inputs: Sequence[np.ndarray]
) -> dict[str, tuple[str, ...]]:
    """The inputs that may vary and their entries; controls where they are constant."""
    known = {"x0": model.states, "parameters": model.parameters}
    known["controls"] = model.controls
    shapes = dict(zip(rollout.names, (each.shape for each in inputs), strict=True))
    return {
        name: names
        for name, names in known.items()
        if name in shapes and (name != "controls" or shapes[name] == (1, len(names)))
    }


def _places(
    rollout: ServedRollout,
    entries: dict[str, tuple[str, ...]],
    vary: str | Sequence[str],
) -> tuple[tuple[tuple[int, Place], ...], tuple[str, ...]]:
    """Input and entry of everything that varies, and its name."""
    places, names = [], []
    wanteds = [vary] if isinstance(vary, str) else list(vary)
    for wanted in wanteds:
        found = [
            (rollout.names.index(name), _place(name, entry), each)
            for name, known in entries.items()
            for entry, each in enumerate(known)
            if wanted in (name, each)
        ]
        if not found:
            known = [n for name in entries for n in (name, *entries[name])]
            is_switched = {"controls"} & {*rollout.names} - {*entries}
            more = "; controls vary where they have one interval" * bool(is_switched)
            raise ValueError(
                f"vary: found {wanted!r}; expected some of {', '.join(known)}{more}"
            )
        places += [(number, entry) for number, entry, _ in found]
        names += [each for _, _, each in found]
    if len(set(places)) < len(places):
        raise ValueError(f"vary: found {wanteds}; expected each entry once")
    return tuple(places), tuple(names)


def _place(name: str, entry: int) -> Place:
    return (0, entry) if name == "controls" else (entry,)


def _box(
    model: "Model", rollout: ServedRollout, places: Sequence[tuple[int, Place]]
) -> tuple[np.ndarray, np.ndarray]:
    """Of the training data, for each entry."""
    domain = model.version.record["signature"]["domain"]
    heads = {"x0": "", "parameters": "parameters_", "controls": "controls_"}
    sides = [
        np.array(
            [
                domain[f"{heads[rollout.names[number]]}{side}"][entry[-1]]
                for number, entry in places
            ]
        )
        for side in ("lower", "upper")
    ]
    return sides[0], sides[1]


def _floats(name: str, value: Any) -> np.ndarray:
    if value is None:
        raise ValueError(f"{name}: found None; expected numbers")
    return real_floats(value, name).copy()


def _fitting(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(value, np.float64)
    try:
        return np.broadcast_to(found, shape)
    except ValueError:
        raise ValueError(
            f"{name}: found an array of shape {found.shape}; expected {shape}, or what "
            "broadcasts to it"
        ) from None
