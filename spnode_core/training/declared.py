"""What a dataset declares of its states: that sums are kept, that none is negative."""

import numpy as np

from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput
from spnode_core.spec import SurrogateSpec
from spnode_core.training.choices import Choices, chosen


def check_positive(spec: SurrogateSpec, dataset: Dataset) -> None:
    """Refuse data with negative states where a surrogate's are positive."""
    if not spec.positive:
        return
    lowest = np.nanmin(dataset.states, axis=(0, 1))
    for name, least in zip(dataset.names, lowest.tolist(), strict=True):
        if least < 0:
            raise InvalidInput(
                "surrogate.positive",
                found=f"true, though {name} goes down to {least:.6g}",
                expected="false, or a dataset without negative states",
            )


def with_sums(spec: SurrogateSpec, dataset: Dataset, choices: Choices) -> SurrogateSpec:
    """The description with the sums that the dataset declares, beside those asked for.

    Raises:
        InvalidInput: A sum that is asked for names no state.
    """
    for title, sums in spec.conserved.items():
        for state in sums:
            if state not in dataset.names:
                raise InvalidInput(
                    f"surrogate.conserved.{title}.{state}",
                    found="no such state",
                    expected=f"one of {', '.join(dataset.names)}",
                )
    is_none = "conserved" in spec.model_fields_set and not spec.conserved
    if is_none or spec.autoencoder.kind != "residual":
        return spec
    declared = _beside(spec, dataset)
    if not declared:
        return spec
    why = "the dataset says so; the decoder keeps these sums exactly"
    chosen(choices, "surrogate.conserved", declared, why)
    return spec.replaced(conserved={**spec.conserved, **declared})


def _beside(spec: SurrogateSpec, dataset: Dataset) -> dict[str, dict[str, float]]:
    """The declared sums that can hold beside those that the caller asked for.

    One that follows from the others is held already; positive states take sums that
    share none.
    """
    found: dict[str, dict[str, float]] = {}
    for title, sums in dataset.conserved.items():
        held = [*spec.conserved.values(), *found.values()]
        rows = [[each.get(name, 0.0) for name in dataset.names] for each in held]
        rows.append([sums.get(name, 0.0) for name in dataset.names])
        shares = spec.positive and any(each.keys() & sums.keys() for each in held)
        is_new = np.linalg.matrix_rank(np.array(rows)) == len(rows)
        if title not in spec.conserved and is_new and not shares:
            found[title] = sums
    return found
