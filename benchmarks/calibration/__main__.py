"""``python -m benchmarks.calibration``: train, calibrate 100 cases, write the page."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.calibration import family
from benchmarks.calibration.cases import OBSERVED, run_cases
from benchmarks.calibration.report import write
from benchmarks.paper.machine import commit
from spnode_core.artifact import load, save
from spnode_core.artifact_file import read_card
from spnode_core.spec import ModalSpec, RelaxationSpec, SurrogateSpec, TrainingSpec
from spnode_core.surrogate import Surrogate
from spnode_core.training.fit import fit
from spnode_core.training.progress import progress_line

TRAJECTORIES = 3000
SURROGATE = SurrogateSpec(
    latent=10,
    linear=ModalSpec(depends_on_parameters=True),
    nonlinear=RelaxationSpec(width=48),
    conserved=family.SYSTEM.conserved,
    positive=True,
    normalisation=dict.fromkeys(family.PARAMETERS, "log"),
)
TRAINING = TrainingSpec(iterations=6000, batch=64, refine=1, max_seconds=300)


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of data and training")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument(
        "--keep", type=Path, help="file that holds the surrogate, trained if missing"
    )
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    source = commit(Path(__file__).resolve().parents[2])
    surrogate, card = _trained(given.seed, given.keep)
    states = card["metrics"]["test"]["states"]
    error = np.array([states[name]["rmse"] for name in OBSERVED])
    cases, seconds = [], []
    began = time.monotonic()
    for case in run_cases(surrogate, error, given.cases):
        cases.append(case)
        seconds.append(time.monotonic() - began)
        began = time.monotonic()
        held = sum(each.at_once for each in cases)
        print(f"\r{held} of {len(cases)} cases within", end="", file=sys.stderr)
    print(file=sys.stderr)
    command = " ".join(["python -m benchmarks.calibration", *sys.argv[1:]])
    print(write(given.out, command, source, given.seed, card, cases, seconds))


def _trained(seed: int, keep: Path | None) -> tuple[Surrogate, dict[str, Any]]:
    """A surrogate of the family, and what is known of it."""
    if keep is not None and keep.exists():
        return load(keep), read_card(keep)
    data = family.dataset(TRAJECTORIES, seed)
    run = fit(data, SURROGATE, TRAINING, seed=seed, on_progress=progress_line())
    if keep is not None:
        save(run.surrogate, keep, card=run.report)
    return run.surrogate, run.report


if __name__ == "__main__":
    main()
