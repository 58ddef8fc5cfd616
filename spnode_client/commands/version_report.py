"""A version as a person reads it: what it takes, what it is, how wrong it is."""

from collections.abc import Iterator
from typing import Any

from spnode_client.moments import moment
from spnode_client.records import cautions, held_out, statements
from spnode_client.terminal import err, out, percent, print_table, short

Record = dict[str, Any]


def print_version(record: Record, card: Record) -> None:
    """Signature, description, equations, errors and proofs; warnings at the end.

    Args:
        record: Of the version.
        card: Its model card.
    """
    signature, evaluation = record["signature"], record.get("evaluation") or {}
    for line in (*_head(record, signature), *described(record["spec"], card)):
        out.print(line, markup=False)
    out.print()
    print_table(
        ("state", "unit", "from", "to", "error", "RMSE"),
        [_state(i, signature, evaluation) for i in range(len(signature["states"]))],
    )
    kinds = ("parameters", "controls")
    inputs = [row for kind in kinds for row in _box(kind, signature)]
    if inputs:
        out.print()
        print_table(("input", "kind", "from", "to"), inputs)
    out.print()
    proved = statements(record.get("certificate") or {})
    for line in (*_errors(evaluation), *proved):
        out.print(line, markup=False)
    print_cautions(evaluation)


def print_cautions(evaluation: Record) -> None:
    """What speaks against a version, on standard error."""
    for caution in cautions(evaluation):
        err.print(caution, markup=False)


def _head(record: Record, signature: Record) -> Iterator[str]:
    at = moment(record["created_at"])
    yield f"{record['model']}/{record['number']}  {at}"
    yield f"digest {record['digest']}, {record['size_bytes']} bytes"
    unit = signature.get("time_unit", "")
    end = f"{short(signature['domain'].get('end'))} {unit}".rstrip()
    yield f"trained on times up to {end}"


def described(spec: Record, card: Record) -> Iterator[str]:
    """What a surrogate consists of, and the equations that were found."""
    parts = [
        f"{part} {spec[part]['kind']}"
        for part in ("autoencoder", "linear", "nonlinear")
        if isinstance(spec.get(part), dict)
    ]
    parts += [f"integrator {spec['integrator']}"]
    yield f"latent {spec['latent']}, {', '.join(parts)}"
    # A card may come from anybody.
    ensemble = card.get("ensemble")
    if isinstance(ensemble, dict) and ensemble.get("members"):
        yield f"an ensemble of {ensemble['members']} members"
    for line in list_in(card, "equations"):
        yield f"    {line}"
    for choice in list_in(card, "choices"):
        if isinstance(choice, dict) and choice.get("what") == "candidate":
            yield f"tried {choice.get('value')}: {choice.get('why')}"


def list_in(record: Record, name: str) -> list[Any]:
    """What a record has there, where that is a list."""
    found = record.get(name)
    return found if isinstance(found, list) else []


def _state(index: int, signature: Record, evaluation: Record) -> tuple[object, ...]:
    name, domain = signature["states"][index], signature["domain"]
    units = signature.get("units") or ()
    found = (held_out(evaluation).get("states") or {}).get(name, {})
    relative = found.get("normalised_rmse")
    return (
        name,
        units[index] if units else "",
        short(domain["lower"][index]),
        short(domain["upper"][index]),
        "" if relative is None else percent(relative),
        short(found.get("rmse")),
    )


def _box(kind: str, signature: Record) -> Iterator[tuple[str, str, str, str]]:
    domain = signature["domain"]
    for i, name in enumerate(signature.get(kind) or ()):
        lower, upper = (domain[f"{kind}_{end}"][i] for end in ("lower", "upper"))
        yield (name, kind.removesuffix("s"), short(lower), short(upper))


def _errors(evaluation: Record) -> Iterator[str]:
    found = held_out(evaluation)
    error = found.get("normalised_rmse")
    if error is None:
        yield "nothing was measured on held-out trajectories"
        return
    yield (
        f"{found.get('trajectories')} held-out trajectories; errors over the standard "
        f"deviation, {percent(error)} in all"
    )
    later = (found.get("mid_trajectory") or {}).get("normalised_rmse")
    if later is not None:
        yield f"from later samples: {percent(later)}"
    baselines = found.get("baselines") or {}
    if baselines:
        each = (f"{n} {percent(b['normalised_rmse'])}" for n, b in baselines.items())
        yield f"trivial models: {', '.join(each)}".replace("_", " ")
