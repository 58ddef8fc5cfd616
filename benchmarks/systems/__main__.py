"""``python -m benchmarks.systems``: make the data, train with ``auto``, write the page.

Each system's row is stored as soon as it is measured; the page shows all stored rows.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.paper.machine import commit, machine
from benchmarks.systems.base import System
from benchmarks.systems.registry import BARS, systems
from benchmarks.systems.report import store, write_page
from benchmarks.systems.score import worst_errors
from spnode_core import TrainingSpec, fit
from spnode_core.dataset import Dataset, load_dataset, save_dataset
from spnode_core.metrics import evaluate
from spnode_core.spec import SplitSpec

_UNSEEN = 50


def main() -> int:
    """Measure the systems asked for."""
    known = systems()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=600.0, help="for one training")
    parser.add_argument("--trajectories", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(".cache/systems"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"no such system: {', '.join(unknown)}")
    jax.config.update("jax_enable_x64", True)
    source = commit(Path(__file__).resolve().parents[2])
    for name in given.names or known:
        print(f"{name}: data", flush=True)
        row = _measure(known[name], given)
        row |= {"commit": source, "command": "python -m benchmarks.systems " + name}
        store(given.out, name, row)
        print(f"{name}: {row['worst']:.2%} of the spread, {row['seconds']:.0f} s")
    print(write_page(given.out, known))
    return 0


def _measure(system: System, given: argparse.Namespace) -> dict[str, Any]:
    training, unseen = _data(system, given)
    start = time.monotonic()
    run = fit(
        training, training=TrainingSpec(max_seconds=given.seconds), seed=given.seed
    )
    seconds = time.monotonic() - start
    errors = worst_errors(run.surrogate, unseen)
    seen = training.split(SplitSpec(), given.seed)[0]
    found = evaluate(run.surrogate, unseen["starts"], seen)
    choices = run.report["choices"]
    worst = max(each["error"] for each in errors.values())
    return {
        "kind": system.kind,
        "bar": BARS[system.kind],
        "worst": worst,
        "errors": errors,
        "baselines": {
            name: max(each["states"].values())
            for name, each in found["baselines"].items()
        },
        "method": run.surrogate.spec.nonlinear.kind,
        "latent": run.surrogate.signature.latent,
        "verdicts": [c for c in choices if c["what"] == "candidate"],
        "outcome": run.report["outcome"],
        "seconds": seconds,
        "seed": given.seed,
        "trajectories": training.trajectories,
        "machine": machine(),
    }


def _data(
    system: System, given: argparse.Namespace
) -> tuple[Dataset, dict[str, Dataset]]:
    """The training data and what is unseen, solved once and kept."""
    stem = f"{system.name}-{given.trajectories}-{given.seed}"
    given.data.mkdir(parents=True, exist_ok=True)
    path = given.data / f"{stem}.npz"
    if not path.exists():
        save_dataset(system.training_data(given.trajectories, given.seed), path)
    names = ("starts", "off_grid", "mid")
    paths = {kind: given.data / f"{stem}-{kind}.npz" for kind in names}
    if not all(each.exists() for each in paths.values()):
        for kind, dataset in system.unseen(_UNSEEN, given.seed).items():
            save_dataset(dataset, paths[kind])
    return load_dataset(path), {k: load_dataset(p) for k, p in paths.items()}


if __name__ == "__main__":
    sys.exit(main())
