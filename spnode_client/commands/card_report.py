"""A model card as a person reads it: what a version is and where it comes from.

A card may come from anybody, with an artifact that was made elsewhere, so nothing in it
is taken for granted.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from spnode_client.commands.version_report import described, list_in, print_cautions
from spnode_client.moments import lasting, moment
from spnode_client.records import Record, claims, errors_by_state, held_out, statements
from spnode_client.terminal import out, print_facts, print_table, short

_PARTS = ("train", "validation", "test")
_Facts = Iterable[tuple[str, str]]


def print_card(version: Record, card: Record) -> None:
    """Identity, data, choices, errors, certificate, spectrum and times.

    Args:
        version: The version's record.
        card: Its model card.
    """
    metrics, certificate = _metrics(card), _certificate(card)
    _section("Version", _identity(version, card))
    _section("Data", _data(card))
    made = {
        "ensemble": _part(card, "ensemble"),
        "equations": list_in(card, "equations"),
    }
    if spec := _part(version, "spec"):
        _lines("Surrogate", described(spec, made))
    _lines("Choices", _choices(card))
    _errors(metrics, version)
    _over_time(metrics)
    proved = statements(certificate)
    if proved:
        count = len(claims(certificate, True)), len(claims(certificate, False))
        more = "{} claims hold, {} do not: models certificate has all".format(*count)
        _lines("Certificate", (*proved, more))
    _section("Spectrum of A", _spectrum(_part(certificate, "spectral_abscissa")))
    _section("Training", _training(card))
    print_cautions(metrics)


def _metrics(card: Record) -> Record:
    return {name: _part(_part(card, "metrics"), name) for name in _PARTS}


def _certificate(card: Record) -> Record:
    found = _part(card, "certificate")
    return {name: found[name] for name in found if _part(found, name).get("statement")}


def _identity(version: Record, card: Record) -> Iterator[tuple[str, str]]:
    yield "version", f"{version.get('model')}/{version.get('number')}"
    yield "created", moment(version.get("created_at"))
    yield "digest", str(version.get("digest") or "")
    size = version.get("size_bytes")
    yield "size", f"{size / 2**20:.2f} MiB" if isinstance(size, int) else ""
    yield "job", str(card.get("job") or version.get("job_id") or "")
    yield "preset", str(card.get("preset") or "")
    yield "seed", _plain(card.get("seed"))
    parent = _part(card, "parent")
    from_ = f"{parent.get('model')}/{parent.get('version')}"
    yield "goes on from", from_ if parent.get("model") else ""
    joined = [each for each in list_in(card, "joined") if isinstance(each, dict)]
    yield "joins", ", ".join(f"{_plain(each.get('version'))}" for each in joined)
    tags = _part(card, "tags")
    yield "tags", ", ".join(f"{name}={value}" for name, value in tags.items())


def _data(card: Record) -> Iterator[tuple[str, str]]:
    dataset, sizes = _part(card, "dataset"), _part(card, "split_sizes")
    yield "dataset", str(dataset.get("id") or "")
    yield "digest", str(dataset.get("digest") or "")
    split = (f"{sizes[name]} for {name}" for name in _PARTS if name in sizes)
    yield "trajectories", ", ".join(split)


def _choices(card: Record) -> Iterator[str]:
    for each in list_in(card, "choices"):
        if isinstance(each, dict):
            value, why = _plain(each.get("value")), each.get("why")
            yield f"{each.get('what')}: {value}" + (f" ({why})" if why else "")


def _errors(metrics: Record, version: Record) -> None:
    rows = []
    for name, found in metrics.items():
        if not found:
            continue
        worst, later = _part(found, "worst_state"), _part(found, "mid_trajectory")
        rows.append(
            (
                name,
                found.get("trajectories"),
                _number(found.get("normalised_rmse")),
                worst.get("name"),
                _number(worst.get("normalised_rmse")),
                _number(later.get("normalised_rmse")),
            )
        )
    columns = ("part", "trajectories", "error", "worst state", "its error")
    title = "Errors over the standard deviation"
    _table(title, (*columns, "from later samples"), rows)
    events = _part(held_out(metrics), "timing")
    of_states = [
        (
            name,
            _number(found.get("normalised_rmse")),
            _number(found.get("rmse")),
            _number(_part(events, name).get("error")),
        )
        for name, found in errors_by_state(metrics, version).items()
        if isinstance(found, dict)
    ]
    columns = ("state", "error", "RMSE", "error in time of events")
    _table("Errors by state, held out", columns, of_states)


def _over_time(metrics: Record) -> None:
    windows = list_in(held_out(metrics), "over_time")
    rows = [
        (
            _number(each.get("from")),
            _number(each.get("to")),
            _number(each.get("normalised_rmse")),
            each.get("worst_state"),
        )
        for each in windows
        if isinstance(each, dict)
    ]
    columns = ("from", "to", "error", "worst state")
    _table("Errors over time, held out", columns, rows)


def _spectrum(claim: Record) -> Iterator[tuple[str, str]]:
    unit = str(claim.get("unit") or "")
    pairs = [
        each
        for each in list_in(claim, "eigenvalues")
        if isinstance(each, list) and len(each) == 2 and all(map(_is_number, each))
    ]
    if not pairs:
        largest = _number(claim.get("value"))
        yield "largest real part", f"{largest} {unit}".rstrip() if largest else ""
        return
    real = [each[0] for each in pairs]
    turning = [abs(each[1]) for each in pairs if each[1]]
    yield "eigenvalues", f"{len(pairs)}, {len(turning)} of them oscillating"
    yield "real parts", f"{short(min(real))} to {short(max(real))} {unit}".rstrip()
    if turning:
        ends = f"{short(min(turning))} to {short(max(turning))}"
        yield "imaginary parts", f"{ends} {unit}".rstrip()


def _training(card: Record) -> Iterator[tuple[str, str]]:
    history = [each for each in list_in(card, "history") if isinstance(each, dict)]
    last = history[-1] if history else {}
    yield "outcome", str(card.get("outcome") or "")
    yield "took", lasting(card.get("seconds"))
    yield "iterations", _plain(last.get("iteration"))
    yield "last loss", _number(last.get("loss"))
    yield "validation loss", _number(last.get("validation_loss"))
    platform, versions = _part(card, "platform"), _part(card, "versions")
    device = (platform.get("device"), platform.get("system"))
    yield "on", ", ".join(str(each) for each in device if each)
    yield "with", ", ".join(f"{name} {number}" for name, number in versions.items())


def _section(title: str, facts: _Facts) -> None:
    told = [(name, said) for name, said in facts if said]
    if told:
        _head(title)
        print_facts((f"  {name}", said) for name, said in told)


def _lines(title: str, lines: Iterable[str]) -> None:
    told = list(lines)
    if told:
        _head(title)
    for line in told:
        out.print(f"  {line}", markup=False)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        _head(title)
        print_table(columns, rows)


def _head(title: str) -> None:
    if title != "Version":
        out.print()
    out.print(title, style="bold")


def _part(record: Any, name: str) -> Record:
    found = record.get(name) if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> str:
    return short(value) if _is_number(value) else ""


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return short(value) if isinstance(value, float) else json.dumps(value)
