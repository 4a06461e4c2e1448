"""What all sections of the config are made of: strict typed models, and types of values."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# TOML has lists where the config has tuples.
Ints = Annotated[tuple[int, ...], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


def operational(default: Any) -> Any:
    """A key that decides how the work is done, left out of fingerprints.

    What comes out is the same up to rounding, and up to the dropout draws for micro_batch_size and compile.
    """
    return Field(default, json_schema_extra={"operational": True})


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def results_view(self) -> dict[str, Any]:
        """Returns the keys that the results depend on, as plain JSON values."""
        skip = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("operational")
        }
        return self.model_dump(mode="json", exclude=skip)
