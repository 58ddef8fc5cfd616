"""A polynomial and a network of logarithms, found from samples of stiff systems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spnode_core import SurrogateSpec, TrainingSpec, check_arrays, load, save
from spnode_core.equations import equations_of
from spnode_core.errors import TrainingError
from spnode_core.nonlinear.log_network import LogNetwork
from spnode_core.nonlinear.polynomial import PolynomialOperator
from spnode_core.training import network_fit
from spnode_core.training.error_units import spread_of
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.network_fit import NetworkFit, fit_network
from spnode_core.training.network_rounds import Rounds, chunks_of
from spnode_core.training.one_step import Pairs, interval_pairs
from spnode_core.training.operator_inference import Snapshots
from spnode_core.training.polynomial_fit import fit_polynomial
from spnode_core.training.presets import resolve


def _saturating(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A substrate that saturates its enzyme, and a fast product."""
    times = np.append(0.0, np.geomspace(1e-2, 10.0, 24))

    def right(_: float, y: np.ndarray) -> list[float]:
        rate = y[0] / (0.05 + y[0])
        return [0.06 - 0.3 * rate, 100.0 * (rate**0.5 - y[1])]

    starts = np.random.default_rng(seed).uniform([0.3, 0.0], [1.0, 0.5], (count, 2))
    states = [
        solve_ivp(right, (0, 10), x0, "LSODA", times, rtol=1e-9, atol=1e-12).y.T
        for x0 in starts
    ]
    return np.stack(states), times


def _snapshots(count: int, seed: int) -> list[Snapshots]:
    states, times = _saturating(count, seed)
    return [Snapshots(z, times, np.zeros((len(times), 0))) for z in states]


def _operator(width: int = 16) -> PolynomialOperator:
    return PolynomialOperator(2, others=0, degree=2, width=width, key=jax.random.key(0))


def _with_rounds(monkeypatch, *rounds: int) -> None:
    stages = zip(network_fit._STAGES, rounds, strict=True)
    shorter = tuple(stage._replace(rounds=count) for stage, count in stages)
    monkeypatch.setattr(network_fit, "_STAGES", shorter)


def _shorten(monkeypatch) -> None:
    _with_rounds(monkeypatch, 6, 2, 2, 3)
    monkeypatch.setattr(network_fit, "_STARTS", 2)
    monkeypatch.setattr(network_fit, "_WRONG", 10.0)
    monkeypatch.setattr(network_fit, "_NOT_GOOD", 1.0)


@pytest.fixture(scope="module")
def fitted() -> NetworkFit:
    with pytest.MonkeyPatch.context() as monkeypatch:
        _with_rounds(monkeypatch, 20, 6, 6, 15)
        return fit_network(_snapshots(30, 0), _operator(), seed=0)


def _disturbed(operator: PolynomialOperator) -> PolynomialOperator:
    return eqx.tree_at(lambda f: f.network.last, operator, 1.02 * operator.network.last)


def test_saturating_kinetics_are_found_where_no_polynomial_is(fitted) -> None:
    with pytest.raises(TrainingError, match="no polynomial of degree 2"):
        fit_polynomial(_snapshots(30, 0), 2, seed=0)
    assert fitted.residual < 1e-3


def test_steps_that_follow_their_curve_go_farther(fitted) -> None:
    snapshots = _snapshots(30, 0)
    rounds = Rounds(spread_of(snapshots), lambda _: None)
    chunks = chunks_of(interval_pairs(snapshots), 1000, np.random.default_rng(0))
    start = fitted.operator
    straight, curved = (
        rounds.loss(rounds.run(start, chunks, 10, "test", bends=bends), chunks)
        for bends in (False, True)
    )
    assert curved < 0.7 * straight < 0.7 * rounds.loss(start, chunks)


def test_equal_seeds_give_equal_bits(monkeypatch) -> None:
    _shorten(monkeypatch)
    snapshots = _snapshots(30, 0)
    found = fit_network(snapshots, _operator(), seed=0)
    again = fit_network(snapshots, _operator(), seed=0)
    for ours, theirs in zip(
        jax.tree.leaves(found.operator), jax.tree.leaves(again.operator), strict=True
    ):
        assert (np.asarray(ours) == np.asarray(theirs)).all()


def test_rounds_go_on_from_an_operator(fitted, monkeypatch) -> None:
    _shorten(monkeypatch)
    snapshots, disturbed = _snapshots(30, 0), _disturbed(fitted.operator)
    found = fit_network(snapshots, disturbed, seed=0, goes_on=True)
    anew = fit_network(snapshots, disturbed, seed=0)
    assert found.residual < 0.1 * anew.residual


def test_what_the_last_stage_found_is_kept_when_its_time_is_up(
    fitted, monkeypatch
) -> None:
    _shorten(monkeypatch)
    monkeypatch.setattr(network_fit, "_WRONG", 0.05)
    told: list[str] = []

    def report(message: str) -> None:
        told.append(message)
        if message == "network, 1 of each interval, round 2 of at most 3":
            raise TrainingError("it takes too much of max_seconds")

    disturbed = _disturbed(fitted.operator)
    found = fit_network(_snapshots(30, 0), disturbed, 0, report, goes_on=True)
    assert told[-1] == "network, 1 of each interval, round 2 of at most 3"
    assert found.residual < 0.05

    def at_once(message: str) -> None:
        raise TrainingError("it takes too much of max_seconds")

    with pytest.raises(TrainingError, match="max_seconds"):
        fit_network(_snapshots(30, 0), _operator(), seed=0, report=at_once)


def test_parts_of_intervals_lie_inside_them() -> None:
    (each,) = _snapshots(1, 0)
    rng = np.random.default_rng(0)
    parts = network_fit._parts_of_intervals([each], 0.25, rng)
    whole = network_fit._parts_of_intervals([each], 1.0, rng)
    assert isinstance(parts, Pairs)
    assert (parts.width > 0).all()
    assert (parts.width < np.diff(each.times)).all()
    assert (np.sort(whole.width) == np.sort(np.diff(each.times))).all()
    assert parts.start.min() >= each.z.min()
    assert parts.end.max() <= each.z.max()


def test_logarithms_begin_at_small_values_and_signs_have_none() -> None:
    inputs = np.stack([np.geomspace(1e-4, 1.0, 101), np.linspace(-1, 1, 101)], axis=1)
    floors = network_fit._floors(inputs)
    assert 1e-4 < floors[0] < 2e-4
    assert floors[1] == 1.0


def test_slopes_bound_every_derivative() -> None:
    draw = np.random.default_rng(0)
    network = LogNetwork(3, 2, width=4, key=jax.random.key(1))
    floors, last = jnp.array([1e-3, 1.0, 0.2]), jnp.asarray(draw.normal(size=(2, 4)))
    network = eqx.tree_at(lambda n: (n.floors, n.last), network, (floors, last))
    points = jnp.asarray(draw.uniform([-0.01, -1, -0.2], [0.01, 1, 1], (500, 3)))
    found = np.abs(np.asarray(jax.vmap(jax.jacfwd(network))(points)))
    bound = network.slopes()
    assert (found <= bound * (1 + 1e-12)).all()
    assert (found.max(axis=0) > 1e-3 * bound).all()


def test_a_surrogate_of_it_is_saved_and_has_no_equations(tmp_path) -> None:
    states, times = _saturating(6, 0)
    dataset = check_arrays({"states": states, "times": times})
    spec = SurrogateSpec.model_validate(
        {
            "autoencoder": {"kind": "none"},
            "nonlinear": {"kind": "polynomial", "degree": 2, "width": 3},
            "integrator": "rodas4",
            "normalisation": {"x1": "max", "x2": "max"},
        }
    )
    spec, _, _ = resolve(dataset, spec, TrainingSpec(), "auto")
    surrogate = create_surrogate(dataset, spec, 0)
    draw = 0.1 * np.random.default_rng(0).normal(size=(2, 3))
    surrogate = eqx.tree_at(
        lambda s: s.dynamics.nonlinear.network.last, surrogate, jnp.asarray(draw)
    )
    assert equations_of(surrogate) == []
    path = tmp_path / "model.spnode"
    save(surrogate, path)
    ours, theirs = (s.rollout(states[:3, 0], times) for s in (surrogate, load(path)))
    assert (np.asarray(ours) == np.asarray(theirs)).all()
    assert np.ptp(np.asarray(ours), axis=1).max() > 0
