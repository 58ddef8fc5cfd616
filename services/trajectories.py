"""One trajectory of a dataset, thinned to what a plot can show.

The dataset is never in memory as a whole: what comes before the trajectory is read and
left out.
"""

from dataclasses import dataclass

import numpy as np

from services.datasets import Datasets
from services.errors import NotFound
from services.job_files import ANY_SIZE
from services.rollouts.rows import dataset_members, skip_rows
from services.work_folder import working
from spnode_core.npz import Member


@dataclass(frozen=True)
class Trajectory:
    """Samples of one trajectory.

    Args:
        number: Which one, from 0.
        samples: How many it has, before thinning.
        names: Of its states, in order.
        parameter_names: Of its parameters.
        control_names: Of its controls.
        times: ``(time,)``, counted from the trajectory's start.
        states: ``(time, state)``, NaN where a value is missing.
        parameters: ``(parameter,)``.
        switches: How often its controls change, before thinning; the first counts.
        control_times: ``(switch,)``, when they do, also where no state was measured.
        controls: ``(switch, control)``, each held until the next of those times.
    """

    number: int
    samples: int
    names: list[str]
    parameter_names: list[str]
    control_names: list[str]
    times: np.ndarray
    states: np.ndarray
    parameters: np.ndarray
    switches: int
    control_times: np.ndarray
    controls: np.ndarray


def read_trajectory(
    datasets: Datasets, id: str, number: int, most_samples: int
) -> Trajectory:
    """Read one trajectory of a dataset.

    Args:
        datasets: Those that the caller sees.
        id: The dataset.
        number: Which trajectory, from 0.
        most_samples: Of more, so many spread evenly from the first to the last.

    Raises:
        NotFound: There is no such dataset, or it has fewer trajectories.
    """
    record = datasets.get(id)
    if number >= record.trajectories:
        last = record.trajectories - 1
        hint = f"those of {id} are numbered from 0 to {last}"
        raise NotFound("trajectory", str(number), hint=hint)
    with working(datasets.settings, "arrays") as folder:
        path = folder / "dataset.npz"
        datasets.download(id, path)
        with dataset_members(path, ANY_SIZE) as members:
            return _read(members, number, most_samples)


def _read(members: dict[str, Member], number: int, most_samples: int) -> Trajectory:
    def row(name: str) -> np.ndarray:
        skip_rows(members[name], number)
        return members[name].rows(1)[0]

    def texts(name: str) -> list[str]:
        return members[name].whole().tolist() if name in members else []

    states = row("states")
    shared = len(members["times"].shape) == 1
    times = members["times"].whole() if shared else row("times")
    present = np.flatnonzero(np.isfinite(states).any(axis=1))
    kept = _thinned(present, most_samples)
    controls = row("controls") if "controls" in members else np.zeros((len(times), 0))
    # What a rollout is to hold, though fewer samples are shown or measured.
    changed = (np.diff(controls[: present[-1] + 1], axis=0) != 0).any(axis=1)
    switches = np.flatnonzero([controls.shape[1] > 0, *changed])
    held = _thinned(switches, most_samples)
    return Trajectory(
        number=number,
        samples=len(present),
        names=texts("names"),
        parameter_names=texts("parameter_names"),
        control_names=texts("control_names"),
        times=(times - times[0])[kept],
        states=states[kept],
        parameters=row("parameters") if "parameters" in members else np.zeros(0),
        switches=len(switches),
        control_times=(times - times[0])[held],
        controls=controls[held],
    )


def _thinned(places: np.ndarray, most: int) -> np.ndarray:
    few = np.linspace(0, len(places) - 1, min(most, len(places)))
    return places[np.unique(few.round().astype(int))]
