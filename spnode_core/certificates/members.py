"""What is proved of an ensemble: what is proved of every one of its members.

The mean of the members' rollouts is no rollout of one dynamics, so a claim is about
each member by itself. What a claim says of all rollouts, e.g. that they come together
or stay in a box, then holds for their mean as well, with the weakest of all members'
numbers, which ``members`` lists.
"""

from collections.abc import Sequence
from typing import Any, cast

from spnode_core.certificates.claims import Certificate

_MEAN = (
    "each member by itself; the mean of their rollouts is no rollout of one dynamics"
)


def of_all_members(found: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Certificates by name, each holding where it holds for all members.

    Args:
        found: The certificates of each member, of the same names.
    """
    return {name: of_each([each[name] for each in found]) for name in found[0]}


def of_each(claims: Sequence[Any]) -> Certificate:
    """One claim of all members: that of the first for which it fails or says nothing.

    Args:
        claims: That of each member, whose numbers are kept as ``members``.
    """
    every = [cast("Certificate", each) for each in claims]
    failing = [number for number, each in enumerate(every) if not each["holds"]]
    count = len(every)
    vacuous = [number for number, each in enumerate(every) if each["is_vacuous"]]
    shown = (failing or vacuous or [0])[0]
    who = f"Not proved of all {count} members" if failing else f"Of all {count} members"
    said = every[shown]
    return {
        "holds": not failing,
        "is_vacuous": bool(vacuous) and not failing,
        "assumptions": [*said["assumptions"], _MEAN],
        "statement": f"{who}, each with numbers of its own; of member {shown}: "
        f"{said['statement']}",
        "members": [
            {k: v for k, v in each.items() if k != "assumptions"} for each in every
        ],
    }
