"""What all descriptions share: frozen, strict pydantic models."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=1, le=16)]


class Spec(BaseModel):
    """A frozen description: unknown fields and non-finite numbers are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def replaced(self, **fields: Any) -> Self:
        """The description with some fields changed, validated anew.

        What was left to its default stays so: only what was set counts as set.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**kept, **fields})
