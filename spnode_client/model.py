"""One version of a model in the service, as functions for programs that differentiate.

::

    model = client.model("robertson@champion")      # fixed: "robertson/3" from here on
    f = model.as_jax()                              # f(x0, times)
    jax.grad(lambda x0: f(x0, times)[-1, 0])(x0)    # one request
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spnode_client.deadlines import timeout_of
from spnode_client.fixed import FixedCalls
from spnode_client.functions.masked import MaskedRollout
from spnode_client.functions.served import ServedRollout

if TYPE_CHECKING:
    from spnode_client.functions.as_scipy import ScipyFunctions


class Model(FixedCalls):
    """A version, fixed: where its alias moves meanwhile, this stays what it was.

    Args:
        client: Asks the service.
        version: Which version it is.
    """

    def as_jax(
        self,
        *,
        final: bool = False,
        states: Sequence[str] | None = None,
        precision: str | None = None,
        on_error: str | None = None,
        timeout_s: float | None = None,
    ) -> Callable[..., Any]:
        """The rollout as a function of JAX arrays.

        ``f(x0, times, *, parameters, controls, control_times)`` works under ``jit``,
        ``grad``, ``jvp``, ``vjp``, ``jacfwd``, ``jacrev``, ``hessian`` and ``vmap``,
        which asks once for all rows. Times are numbers, not traced. Controls that do
        not switch, ``(1, control)``, need no ``control_times``.

        Args:
            final: Give ``(state,)`` at the last time alone, not ``(time, state)``.
            states: Which states; all by default.
            precision: ``"float64"`` for networks in float64: derivatives exact to
                1e-10.
            on_error: ``"mask"``: rows that leave the finite range, or whose numbers
                are not finite, are NaN, where one of them ends the call by default.
                So are their derivatives, but 0 where their weights are.
            timeout_s: How long each request may take, as for ``Client.rollout``.

        Raises:
            ImportError: JAX is not installed.
            ValueError: A state is unknown, or ``timeout_s`` is no number of seconds.
        """
        from spnode_client.functions.as_jax import jax_function

        return jax_function(self._maker(final, states, precision, on_error, timeout_s))

    def as_torch(
        self,
        *,
        final: bool = False,
        states: Sequence[str] | None = None,
        precision: str | None = None,
        on_error: str | None = None,
        timeout_s: float | None = None,
    ) -> Callable[..., Any]:
        """The rollout as a function of torch tensors, on the CPU or on a device.

        ``f(x0, times, *, parameters, controls, control_times)`` takes leading axes
        (one request for all), gradients, and gradients of gradients.

        Args:
            final: As for ``as_jax``; so are ``states``, ``precision``, ``on_error``.
            states: Which states; all by default.
            precision: Of the networks.
            on_error: Whether rows that fail are NaN.
            timeout_s: Of each request, as for ``as_jax``.

        Raises:
            ImportError: torch is not installed.
            ValueError: A state is unknown, or ``timeout_s`` is no number of seconds.
        """
        from spnode_client.functions.as_torch import torch_function

        return torch_function(
            self._maker(final, states, precision, on_error, timeout_s)
        )

    def as_scipy(
        self, x0: Any, times: Any, parameters: Any = None, **options: Any
    ) -> "ScipyFunctions":
        """Residuals, their Jacobian, and value with gradient, of one vector.

        Args:
            x0: Initial condition, ``(state,)``: the start, or held where not varied.
            times: Times of the observations.
            parameters: Likewise, where the version takes them.
            **options: ``vary`` (names of inputs and of their entries, ``["x0"]`` or
                ``["k1", "k2"]``), ``observations`` (``(time, state)``, NaN where there
                is none), ``noise`` (standard deviations that broadcast to them),
                ``states``, ``precision``, ``controls``, ``control_times``,
                ``on_error`` (``"mask"``: residuals are NaN and the value infinite
                where the trajectory leaves the finite range, so that a search takes a
                shorter step), ``timeout_s`` (of each request, as for ``as_jax``).
        """
        from spnode_client.functions.as_scipy import scipy_functions

        return scipy_functions(self, x0, times, parameters, **options)

    def at(
        self,
        times: Any,
        control_times: Any = None,
        *,
        final: bool = False,
        states: Sequence[str] | None = None,
        precision: str | None = None,
        on_error: str | None = None,
        timeout_s: float | None = None,
    ) -> ServedRollout:
        """The rollout at some times, as a function of numpy arrays.

        Without ``control_times``, controls have one interval: ``(1, control)``.

        Raises:
            ValueError: Times are no list of numbers, a state is unknown,
                there are ``control_times`` without controls, ``on_error`` is another
                word, or ``timeout_s`` is no number of seconds.
        """
        unknown = [name for name in states or () if name not in self.states]
        if unknown:
            known = ", ".join(self.states)
            raise ValueError(f"states: found {unknown[0]!r}; expected some of {known}")
        if control_times is not None and not self.controls:
            raise ValueError(f"control_times: found {control_times!r}; expected none")
        names = ("x0",)
        names += ("parameters",) if self.parameters else ()
        names += ("controls",) if self.controls else ()
        options: dict[str, Any] = {"final": True} if final else {}
        if states is not None:
            options["outputs"] = tuple(states)
        if precision is not None:
            options["precision"] = precision
        if on_error not in (None, "raise", "mask"):
            expected = "'raise' or 'mask'"
            raise ValueError(f"on_error: found {on_error!r}; expected {expected}")
        made = MaskedRollout if on_error == "mask" else ServedRollout
        if on_error is not None:
            options["on_error"] = on_error
        if (seconds := timeout_of(timeout_s)) is not None:
            options["timeout_s"] = seconds
        sizes = {"x0": self.states, "parameters": self.parameters}
        sizes["controls"] = self.controls
        return made(
            self.client,
            self.reference,
            names,
            tuple(len(sizes[name]) for name in names),
            len(self.states if states is None else states),
            _bytes("times", times),
            b"" if control_times is None else _bytes("control_times", control_times),
            tuple(sorted(options.items())),
        )

    def _maker(
        self,
        final: bool,
        states: Sequence[str] | None,
        precision: str | None,
        on_error: str | None,
        timeout_s: float | None,
    ) -> Callable[[Any, Any], ServedRollout]:
        chosen: dict[str, Any] = {"final": final, "states": states}
        chosen |= {"precision": precision, "on_error": on_error}
        chosen["timeout_s"] = timeout_s
        self.at([1.0], **chosen)

        def make(times: Any, control_times: Any) -> ServedRollout:
            return self.at(times, control_times, **chosen)

        return make


def _bytes(name: str, times: Any) -> bytes:
    try:
        found = np.asarray(times, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: found {type(times).__name__}; expected a list of numbers that "
            "are known before anything is computed, not traced ones"
        ) from error
    if found.ndim != 1 or found.size == 0:
        raise ValueError(
            f"{name}: found an array of shape {found.shape}; expected a list of numbers"
        )
    return found.tobytes()
