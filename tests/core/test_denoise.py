import dataclasses

import numpy as np
import pytest

from spnode_core import check_arrays
from spnode_core.denoise import denoised
from spnode_core.errors import InvalidInput

TIMES = np.linspace(0.0, 3.0, 40)
UNITS = np.array([1.0, 1e-5])


def decays(trajectories=300, noise=0.0):
    """Decays from random starts, one state tiny, with noise in parts of its size."""
    random = np.random.default_rng(0)
    starts = random.uniform(0.9, 1.0, (trajectories, 1, 2))
    clean = starts * np.exp(-TIMES[:, None] * [1.0, 0.5]) * UNITS
    noisy = clean + noise * UNITS * random.normal(size=clean.shape)
    return clean, check_arrays(
        {"states": noisy, "times": TIMES, "names": np.array(["a", "b"])}
    )


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
def test_noise_falls_to_that_of_the_directions_that_are_kept(noise):
    clean, dataset = decays(noise=noise)
    error = (denoised(dataset).states - clean) / UNITS
    # Two of 80 directions, and means over 300 trajectories: a sixth, not all at 0.
    assert np.sqrt(np.mean(error**2)) < 0.3 * noise
    assert np.sqrt(np.mean(error[:, 0] ** 2)) < 0.5 * noise


def test_clean_trajectories_are_left_as_they_are():
    clean, dataset = decays()
    np.testing.assert_allclose(denoised(dataset).states, clean, rtol=1e-10)


def test_trajectories_on_other_times_are_refused():
    _, dataset = decays(3)
    other = dataset.times.copy()
    other[1] *= 2
    with pytest.raises(InvalidInput, match="times differ"):
        denoised(dataclasses.replace(dataset, times=other))
