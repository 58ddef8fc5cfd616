"""Whether a version takes what a dataset of the store has."""

from services.datasets import DatasetRecord
from services.errors import Invalid
from services.versions import VersionRecord
from spnode_core.agreement import difference
from spnode_core.spec import Signature, SplitSpec


def check_version_agrees(
    version: VersionRecord, dataset: DatasetRecord, field: str
) -> None:
    """Refuse a version for data of other states, parameters, controls or units.

    Args:
        version: The version.
        dataset: What it is to be rolled out on, or trained.
        field: Where the version stands in the request.

    Raises:
        Invalid: What the version takes, and what the dataset has.
    """
    summary = dataset.summary
    found = difference(
        Signature.model_validate(version.signature),
        states=dataset.states,
        parameters=dataset.parameters,
        controls=tuple(summary["controls"]),
        units=[each.get("unit", "") for each in summary["states"].values()],
        time_unit=summary["times"].get("unit", ""),
    )
    if found is not None:
        name, what = f"{version.model}/{version.number}", found.what.replace("_", " ")
        raise Invalid(
            field,
            found=f"{name}, which takes the {what} {found.expected}",
            expected=f"a version for the {what} of {dataset.id}: {found.found}",
        )


def division_of(
    version: VersionRecord, dataset: DatasetRecord
) -> tuple[SplitSpec, int] | None:
    """How a version divided a dataset; None where it was trained on another."""
    card = version.card
    source = card.get("dataset") or {}
    if not isinstance(source, dict):
        return None
    is_same = source.get("digest") == dataset.summary.get("digest") is not None
    if not (is_same or source.get("id") == dataset.id) or "split" not in card:
        return None
    try:
        split = SplitSpec.model_validate(card["split"])
        seed = int(card["seed"]) if split.seed is None else split.seed
    except (KeyError, TypeError, ValueError):
        # The card of an artifact that was uploaded is anybody's.
        return None
    # Equal divisions are equal, wherever their seed was said.
    return split.model_copy(update={"seed": None}), seed
