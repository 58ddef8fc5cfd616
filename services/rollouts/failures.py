"""What went wrong with a batch, on its way from the worker to the gateway: JSON."""

from services.blobs import Damaged, Lost
from services.errors import NotFound, ServiceError, Unavailable, WorkersDied
from spnode_core.errors import InvalidInput


def fields_of(error: Exception) -> dict[str, str]:
    """What a worker says of an error."""
    if isinstance(error, (InvalidInput, WorkersDied)):
        return {
            "kind": "input" if isinstance(error, InvalidInput) else "died",
            "field": error.field,
            "found": error.found,
            "expected": error.expected,
        }
    if isinstance(error, Lost):
        return {"kind": "lost", "key": error.name}
    if isinstance(error, NotFound):
        return {"kind": "missing", "what": error.kind, "name": error.name}
    if isinstance(error, Damaged):
        return {"kind": "damaged", "message": error.message}
    if isinstance(error, ServiceError):
        return {"kind": "unavailable", "message": error.message, "code": error.code}
    return {"kind": "other", "message": f"{type(error).__name__}: {error}"}


def error_of(fields: dict[str, str]) -> Exception:
    """The error that a gateway raises for it."""
    match fields["kind"]:
        case "input":
            return InvalidInput(
                fields["field"], found=fields["found"], expected=fields["expected"]
            )
        case "died":
            return WorkersDied(
                fields["field"], found=fields["found"], expected=fields["expected"]
            )
        case "lost":
            return Lost(fields["key"])
        case "missing":
            return NotFound(fields["what"], fields["name"])
        case "damaged":
            return Damaged(fields["message"])
        case "unavailable":
            # A worker of an earlier version names no code.
            return Unavailable(fields["message"], code=fields.get("code"))
    return RuntimeError(f"a rollout worker failed: {fields['message']}")
