"""Pictures of a training: what they show is what the run has."""

import dataclasses
import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from spnode_core import plots
from spnode_core.dataset import check_arrays
from spnode_core.spec import BilinearSpec, SplitSpec, SurrogateSpec, TrainingSpec
from spnode_core.training.fit import fit
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.presets import resolve


def decaying(rows=12, states=2, **more):
    """Decays of rates 1 and 1000, on times over six decades."""
    times = np.append(0.0, np.geomspace(1e-5, 10, 15))
    start = np.random.default_rng(0).uniform(0.5, 1.5, (rows, 1, states))
    rates = np.resize([1.0, 1000.0], states)
    x = start * np.exp(-rates * times[:, None])
    return check_arrays({"states": x, "times": times, **more})


def trained(dataset, **more):
    return fit(
        dataset,
        SurrogateSpec(latent=2, nonlinear=BilinearSpec()),
        TrainingSpec(iterations=40, polish="none"),
        on_progress=lambda _: None,
        **more,
    )


@pytest.fixture(scope="module")
def run():
    return trained(decaying(), split=SplitSpec(validation=0.4, test=0.25))


def drawn(draw):
    figure = Figure()
    draw(figure)
    return figure


def test_every_picture_is_a_png_and_the_same_again(run):
    pictures = plots.draw_training(run)
    assert set(pictures) == {"loss", "errors", "spectrum", "trajectories"}
    for png in pictures.values():
        assert matplotlib.image.imread(io.BytesIO(png)).shape[1] > 500
        assert len(png) < 150_000
    assert plots.draw_training(run) == pictures


def test_trajectories_show_the_reference_of_the_test_part_and_the_rollout(run):
    assert run.held_out.trajectories == run.report["split_sizes"]["test"]
    figure = drawn(plots._trajectories(run.surrogate, run.held_out))
    first = figure.axes[0]
    assert first.get_xscale() == "log"
    lines = {line.get_label(): line for line in first.lines}
    assert {"median", "worst"} <= set(lines)
    dots = [line.get_ydata() for line in first.lines if line.get_marker() == "."]
    for truth in dots:
        away = np.abs(run.held_out.states[:, :, 0] - truth).max(axis=1)
        row = int(away.argmin())
        assert away[row] == 0
    worst = run.report["metrics"]["test"]["over_trajectories"]["worst"]["trajectory"]
    x = run.surrogate.rollout(
        run.held_out.states[worst, 0], run.held_out.elapsed[worst]
    )
    np.testing.assert_allclose(lines["worst"].get_ydata(), x[:, 0], rtol=1e-6)
    # Seven trajectories of validation promise an interval.
    assert run.surrogate.signature.intervals is not None
    assert len(first.collections) == 2


def test_missing_samples_are_gaps_not_zeros(run):
    states = run.held_out.states.copy()
    states[:, 5, 0] = np.nan
    mask = run.held_out.mask & np.isfinite(states)
    gappy = dataclasses.replace(run.held_out, states=states, mask=mask)
    figure = drawn(plots._trajectories(run.surrogate, gappy))
    for line in figure.axes[0].lines:
        assert np.isnan(line.get_ydata()[5])


def test_many_states_are_a_map_of_reference_surrogate_and_difference():
    dataset = decaying(states=20)
    spec = SurrogateSpec(latent=2, nonlinear=BilinearSpec())
    surrogate = create_surrogate(dataset, resolve(dataset, spec)[0], seed=0)
    figure = drawn(plots._trajectories(surrogate, dataset))
    reference, predicted, difference = (
        axes.collections[0].get_array().reshape(20, -1) for axes in figure.axes[:3]
    )
    assert np.ptp(reference) > 0
    np.testing.assert_allclose(difference, predicted - reference, atol=1e-12)


def test_nothing_held_out_leaves_the_trajectories_out(run):
    alone = dataclasses.replace(run, held_out=None)
    assert set(plots.draw_training(alone)) == {"loss", "errors", "spectrum"}


def test_losses_of_stages_follow_one_another():
    history = [
        {"stage": "fit", "iteration": 10, "loss": 1.0, "validation_loss": None},
        {"stage": "fit", "iteration": 20, "loss": 0.5, "validation_loss": 0.7},
        {"stage": "polish", "iteration": 5, "loss": 0.0, "validation_loss": None},
    ]
    (axes,) = drawn(plots._loss(history)).axes
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines == {"fit": [10, 20], "fit (held out)": [10, 20], "polish": [25]}
    assert axes.get_yscale() == "log"


def test_growing_modes_are_not_called_decay_rates():
    claim = {"eigenvalues": [[-1.0, 2.0], [-1.0, -2.0], [0.5, 0.0]]}
    (axes,) = drawn(plots._spectrum(claim)).axes
    assert axes.get_xlabel() == "Re λ"
    assert list(axes.lines[0].get_xdata()) == [-1.0, -1.0, 0.5]
    members = {"members": [claim, {"eigenvalues": [[-3.0, 0.0]]}]}
    (axes,) = drawn(plots._spectrum(members)).axes
    assert [line.get_label() for line in axes.lines] == ["member 1", "member 2"]
    assert plots._spectrum({"members": [{}]}) is None


def test_dollars_in_names_are_no_formulas(run):
    names = (r"$\ce{H2O}$", "US$ per $")
    named = dataclasses.replace(run.held_out, names=names)
    figure = drawn(plots._trajectories(run.surrogate, named))
    assert [axes.get_title() for axes in figure.axes] == [
        r"\$\ce{H2O}\$",
        r"US\$ per \$",
    ]
    assert plots.png(plots._trajectories(run.surrogate, named)).startswith(b"\x89PNG")


def test_errors_are_drawn_where_there_are_samples_alone():
    bins = [
        {"from": 0.0, "to": 1.0, "normalised_rmse": 0.02},
        {"from": 5.0, "to": 6.0, "normalised_rmse": 0.04},
    ]
    found = {"over_time": bins, "normalised_rmse": 0.03}
    figure = drawn(plots._errors({"validation": found, "test": None}, ""))
    values, edges, _ = figure.axes[0].patches[0].get_data()
    np.testing.assert_array_equal(values, [0.02, np.nan, 0.04])
    assert list(edges) == [0, 1, 5, 6]
    # Within a decade the axis has numbers all the same.
    figure.canvas.draw()
    assert any(each.get_text() for each in figure.axes[0].get_yticklabels(which="both"))


def test_maps_begin_at_their_first_sample():
    dataset = decaying(states=20)
    spec = SurrogateSpec(latent=2, nonlinear=BilinearSpec())
    surrogate = create_surrogate(dataset, resolve(dataset, spec)[0], seed=0)
    figure = drawn(plots._trajectories(surrogate, dataset))
    low, high = figure.axes[0].get_xlim()
    assert 0 < low <= dataset.times[0, 1]
    assert high >= dataset.times[0, -1]
