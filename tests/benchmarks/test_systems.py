import numpy as np
import pytest

from benchmarks.systems.registry import systems

_QUICK = ["akzo_nobel", "e5", "fitzhugh_nagumo", "hydrogen_ignition"]


@pytest.mark.parametrize("name", _QUICK)
def test_a_system_makes_the_same_data_for_a_seed(name: str) -> None:
    system = systems()[name]
    data, again = (system.training_data(3, 0) for _ in range(2))
    assert data.trajectories == 3
    assert np.isfinite(data.states).all()
    assert (data.states == again.states).all()
    assert (data.states[0] != data.states[1]).any()


def test_unseen_trajectories_are_of_other_starts_and_between_the_samples() -> None:
    system = systems()["fitzhugh_nagumo"]
    data, unseen = system.training_data(3, 0), system.unseen(3, 0)
    assert set(unseen) == {"starts", "off_grid", "mid"}
    assert not np.isin(unseen["starts"].states[:, 0], data.states[:, 0]).any()
    off_grid = unseen["off_grid"]
    asked = off_grid.times[0] if off_grid.times.ndim > 1 else off_grid.times
    is_sample = np.isin(asked, data.times)
    is_present = off_grid.mask[0].any(axis=-1)
    assert (is_present[1:] == ~is_sample[1:]).all()
