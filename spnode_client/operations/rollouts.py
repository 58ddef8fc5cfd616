"""Operations on rollouts: ``/v1/rollout`` and its derivatives."""

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spnode_client.arrays import NPZ, pack, real_floats, states_batch, unpack
from spnode_client.calls import Call, Operation, Reply, json_call, perform
from spnode_client.deadlines import Deadline
from spnode_client.errors import DomainWarning
from spnode_client.records import Record, Rollout, listed

# Members of an answer that hold JSON.
_JSON = ("warnings", "domain", "rows", "sweep")


def rollout(body: Record, retries: int, timeout_s: float | None) -> Operation[Rollout]:
    """Trajectories from each initial condition, within ``timeout_s`` where given."""
    answer = yield from _asked("/v1/rollout", body, retries, timeout_s)
    told = tuple(map(str, answer.get("warnings", ())))
    for warning in told:
        warnings.warn(warning, DomainWarning, stacklevel=_outside())
    return Rollout(
        x=answer["x"],
        times=answer["times"],
        model=str(answer["model"]),
        version=int(answer["version"]),
        digest=str(answer["digest"]),
        warnings=told,
        sweep=answer.get("sweep"),
        lower=answer.get("lower"),
        upper=answer.get("upper"),
        coverage=answer.get("coverage"),
        spread=answer.get("spread"),
        z=answer.get("z"),
        domain=answer.get("domain"),
        rows=answer.get("rows"),
    )


def derivative(
    kind: str, body: Record, retries: int, timeout_s: float | None
) -> Operation[Record]:
    """``jvp``, ``vjp``, ``hvp``, ``jacobian`` or ``objective``, as named arrays."""
    path = "/v1/objective" if kind == "objective" else f"/v1/rollout/{kind}"
    return (yield from _asked(path, body, retries, timeout_s))


def _asked(
    path: str, body: Record, retries: int, timeout_s: float | None
) -> Operation[Record]:
    deadline = Deadline.after(timeout_s)
    call = replace(_call(path, body), deadline=deadline)
    return _answer((yield from perform(call, retries)))


def _outside() -> int:
    """Level of the nearest caller outside this package: a warning belongs there."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and _is_ours(frame.f_globals):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(names: Mapping[str, Any]) -> bool:
    # Code that was run with globals of its own has no name.
    return str(names.get("__name__", "")).startswith("spnode_client")


def request_body(model: str, x0: Any, times: Any, **options: Any) -> Record:
    """The request's fields: arrays as float64, what is None left out."""
    body: Record = {"model": model, "x0": states_batch(x0)}
    body["times"] = times if isinstance(times, Mapping) else real_floats(times, "times")
    for name, value in options.items():
        if name in ("parameters", "controls", "control_times", "cotangents"):
            value = None if value is None else real_floats(value, name)
        elif name == "tangents":
            value = {
                part: real_floats(given, f"{name}.{part}")
                for part, given in value.items()
            }
        elif name == "inputs" and value is not None:
            value = list(value)
        elif name == "sweep" and value is not None:
            value = listed(value)
        elif name == "objective" and value is not None:
            value = _objective(value)
        if value is not None:
            body[name] = value
    return body


def _objective(given: Mapping[str, Any]) -> Record:
    """The objective with arrays, and weights of 0 where an observation is missing."""
    fields: Record = {
        name: value if name == "kind" else real_floats(value, f"objective.{name}")
        for name, value in given.items()
        if value is not None
    }
    observations = fields.get("observations")
    if observations is not None and np.isnan(observations).any():
        missing = np.isnan(observations)
        weights = np.asarray(fields.get("weights", 1.0))
        shape = np.broadcast_shapes(weights.shape, observations.shape)
        fields["weights"] = np.where(missing, 0.0, np.broadcast_to(weights, shape))
        fields["observations"] = np.where(missing, 0.0, observations)
    return fields


def _call(path: str, body: Record) -> Call:
    """Binary both ways; JSON where the times are a rule, which only JSON can say."""
    headers = {"accept": NPZ}
    if isinstance(body["times"], Mapping):
        return json_call("POST", path, body, headers=headers, is_computed=True)
    headers["content-type"] = NPZ
    content = pack(_members(body))
    return Call("POST", path, headers=headers, content=content, is_computed=True)


def _members(body: Record) -> Record:
    members: Record = {}
    for name, value in body.items():
        if name in ("tangents", "objective"):
            members |= {f"{name}.{part}": given for part, given in value.items()}
        elif isinstance(value, (Mapping, list)):
            members[name] = json.dumps(value)
        else:
            members[name] = value
    return members


def _answer(reply: Reply) -> Record:
    """The answer's fields; text members become what they say."""
    if not reply.headers.get("content-type", "").startswith(NPZ):
        return reply.json()
    answer: Record = {}
    for name, member in unpack(reply.content).items():
        # ``vjp.x0`` is the field ``x0`` of ``vjp``, as in JSON.
        outer, _, inner = name.partition(".")
        if inner:
            answer.setdefault(outer, {})[inner] = member
        else:
            answer[name] = _value(name, member)
    return answer


def _value(name: str, member: np.ndarray) -> Any:
    if member.dtype.kind == "U" and member.shape == ():
        text = str(member)
        return json.loads(text) if name in _JSON else text
    return float(member) if name in ("value", "coverage") else member
