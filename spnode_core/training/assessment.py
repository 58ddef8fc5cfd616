"""What is measured and proved of a surrogate once it is trained, for its card."""

import dataclasses
import math
import platform
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from spnode_core.certificates import CONTRACTING, contracts
from spnode_core.data_report import trajectory_digests
from spnode_core.dataset import Dataset
from spnode_core.ensemble import members_of
from spnode_core.equations import equations_of
from spnode_core.errors import TrainingError
from spnode_core.metrics import evaluate
from spnode_core.surrogate import Surrogate
from spnode_core.training.candidates import finite_rows
from spnode_core.training.data_certificates import data_certificates
from spnode_core.training.members import members_report
from spnode_core.training.parts import Parts, some


def assess(
    surrogate: Surrogate,
    parts: Parts,
    seed: int,
    member_seeds: tuple[int, ...],
    *,
    certified: bool,
) -> dict[str, Any]:
    """Errors, certificates and equations of a trained surrogate.

    Args:
        surrogate: With its intervals and neighbours.
        parts: Trajectories that it learned from, and others.
        seed: Source of what is drawn: trajectories, later samples.
        member_seeds: Of an ensemble those of its members.
        certified: Whether all rollouts have to come together by construction.

    Returns:
        JSON: ``metrics`` by part, ``ensemble`` where it is one, ``certificate``,
        ``equations``, ``warnings``, ``split_sizes``, ``versions``, ``platform``.

    Raises:
        TrainingError: Rollouts leave the finite range, or do not contract provably
            where they have to.
    """
    sizes = _sizes(parts)
    parts, lost = _with_finite_test(surrogate, parts)
    # Rollouts from later samples are compiled anew: on one part they are enough.
    seeds = {"test" if parts.test.trajectories else "validation": seed}
    held_out = {"validation": parts.validation, "test": parts.test}
    metrics = {"train": _metrics(surrogate, some(parts.train, seed))} | {
        name: _metrics(surrogate, part, parts.train, seeds.get(name))
        for name, part in held_out.items()
    }
    judged = metrics["test"] or metrics["validation"]
    if judged:
        judged["warnings"] += [*lost, *_repeated(parts), *_cut(parts)]
    else:
        # What is to be said of a training is said all the same.
        judged = metrics["train"]
        assert judged is not None
        judged["warnings"] = []
    judges = {"test": parts.test, "validation": parts.validation}
    ensemble = members_report(surrogate, member_seeds, judges)
    certificate = {
        **surrogate.certificate(),
        **data_certificates(surrogate, held_out, metrics),
    }
    if certified and not contracts(certificate):
        found = " ".join(str(certificate[name]["statement"]) for name in CONTRACTING)
        raise TrainingError(
            "the trained surrogate does not contract provably, so far that it could be "
            f"seen: {found} Where its decay is too slow, raise "
            "surrogate.linear.rates.minimum"
        )
    return {
        **({"ensemble": ensemble} if ensemble else {}),
        "split_sizes": sizes,
        # Of an ensemble those of the member that learned from all training data.
        "equations": equations_of(members_of(surrogate)[0]),
        "metrics": metrics,
        "warnings": judged["warnings"],
        "certificate": certificate,
        "versions": _versions(),
        "platform": _platform(),
    }


def _sizes(parts: Parts) -> dict[str, int]:
    return {
        "train": parts.train.trajectories,
        "validation": parts.validation.trajectories,
        "test": parts.test.trajectories,
    }


def _with_finite_test(surrogate: Surrogate, parts: Parts) -> tuple[Parts, list[str]]:
    """The parts without test trajectories whose rollouts are lost, and a warning.

    The test part chose nothing, so it may be that only there a rollout leaves the
    finite range. Where all of them do, the errors are those of the validation part;
    where there is none, the evaluation refuses it.
    """
    test = parts.test
    rows = finite_rows(surrogate, test) if test.trajectories else np.ones(0, bool)
    if rows.all() or not (rows.any() or parts.validation.trajectories):
        return parts, []
    of = "the others" if rows.any() else "the validation part"
    said = (
        f"rollouts of {int((~rows).sum())} of {len(rows)} test trajectories leave the "
        f"finite range: the errors are of {of}"
    )
    return dataclasses.replace(parts, test=test.take(np.flatnonzero(rows))), [said]


def _repeated(parts: Parts) -> list[str]:
    """Whether what was held out was learned from all the same."""
    known = set(trajectory_digests(parts.train))
    held_out = parts.held_out
    assert held_out is not None
    again = sum(each in known for each in trajectory_digests(held_out))
    if not again:
        return []
    return [
        f"{again} of {held_out.trajectories} held-out trajectories are in the training "
        "part too, number by number: their errors say nothing of new ones"
    ]


def _cut(parts: Parts) -> list[str]:
    """Whether what was held out is of the very runs that were learned from."""
    if parts.pieces == 1:
        return []
    return [
        f"each trajectory was cut into {parts.pieces} pieces, some of which were held "
        "out: errors on other trajectories may be larger than is said here, by "
        "intervals too, and the horizon is that of a piece"
    ]


def _metrics(
    surrogate: Surrogate,
    part: Dataset,
    training: Dataset | None = None,
    seed: int | None = None,
) -> dict[str, Any] | None:
    if not part.trajectories:
        return None
    found = evaluate(surrogate, part, training, seed=seed)
    if not math.isfinite(found["scaled_mse"] + found["refined_scaled_mse"]):
        raise TrainingError(
            "rollouts over whole trajectories leave the finite range, though they fit "
            "over the horizon trained on: train on longer horizons, with more latent "
            "variables, or with smaller steps"
        )
    return found


def _versions() -> dict[str, str]:
    packages = ("equinox", "jax", "numpy", "optax")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def _platform() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }
