"""Base class and value types of the config sections."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# TOML arrays are read as lists, but the config stores tuples.
Ints = Annotated[tuple[int, ...], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


def operational(default: Any) -> Any:
    """Returns the field of a key that affects how the work is done, and is left out of fingerprints.

    Results are the same up to rounding and, for micro_batch_size and compile, up to the dropout draws.
    """
    return Field(default, json_schema_extra={"operational": True})


def added(default: Any) -> Any:
    """Returns the field of a key that was added later and whose default means what was done before.

    It is part of fingerprints only where it differs from the default, so that existing results stay valid.
    """
    return Field(default, json_schema_extra={"added": True})


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def results_view(self) -> dict[str, Any]:
        """Returns the keys that affect results, as plain JSON values."""
        view = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value, extra = getattr(self, name), field.json_schema_extra
            mark = extra if isinstance(extra, dict) else {}
            if mark.get("operational") or (mark.get("added") and value == field.default):
                del view[name]
            elif isinstance(value, Section):
                view[name] = value.results_view()
        return view
