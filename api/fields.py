"""The fields that a place in a request may have, for those who misspell one."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import Scope

from services.rollouts.wire import Wire


def root_of(error: ValidationError | RequestValidationError, scope: Scope) -> Any:
    """The type of what was refused, None where it is not known."""
    if isinstance(error, RequestValidationError):
        dependant = getattr(scope.get("route"), "dependant", None)
        bodies = getattr(dependant, "body_params", [])
        return bodies[0].field_info.annotation if len(bodies) == 1 else None
    return next((each for each in _below(Wire) if each.__name__ == error.title), None)


def fields_at(root: Any, place: Sequence[Any]) -> list[str]:
    """Names of the fields beside a place, in the order in which they are described.

    Args:
        root: The type of the whole: a model, or a union of some.
        place: Where it is, with pydantic's tags of unions, as ``loc`` of its errors.
    """
    here = list(_models(root))
    for part in place[:-1]:
        tagged = [each for each in here if part in _kinds(each)]
        if len(here) > 1 and tagged:
            here = tagged
            continue
        inner = [
            model
            for each in here
            if part in each.model_fields
            for model in _models(each.model_fields[part].annotation)
        ]
        # Places in lists, keys and tags of other kinds leave the type as it is, so that
        # the fields of all forms of ``times`` are told, say.
        here = inner or here
    return list(dict.fromkeys(name for each in here for name in each.model_fields))


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, however deep in unions, lists and mappings."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    elif get_origin(kind) is not Literal:
        for part in get_args(kind):
            yield from _models(part)


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for each in model.__subclasses__():
        yield from _below(each)
