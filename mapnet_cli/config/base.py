"""Base class and value types of the config sections."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must not contain duplicates")
    return values


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if values != tuple(sorted(set(values))):
        raise ValueError("must be in ascending order, without duplicates")
    return values


Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
ZeroOrMore = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]

# TOML arrays are read as lists, but the config stores tuples.
_ARRAY = Field(strict=False)
Ints = Annotated[tuple[int, ...], _ARRAY, AfterValidator(_distinct)]
Counts = Annotated[tuple[Count, ...], _ARRAY, AfterValidator(_distinct)]
Rates = Annotated[tuple[Positive, ...], _ARRAY, AfterValidator(_distinct)]
Strings = Annotated[tuple[str, ...], _ARRAY, AfterValidator(_distinct)]
VALID_NAME, RESERVED = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII), ("untrained", "majority")
"""Names of methods and imports, which are parts of paths, and rows of tables whose names they can't have."""
GLUE_TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "AX")


def short_name(task: str) -> str:
    """Returns the normalised form of a task's name, the same for all spellings."""
    short = re.sub(r"(v2|clean)$", "", task.lower().replace("-", "").replace("_", ""))
    return "ax" if short == "diagnostic" else short


def task_name(name: str) -> str:
    """Returns the name of GLUE's task in any spelling ("sst2"), or the name as it is."""
    return next((task for task in GLUE_TASKS if short_name(task) == short_name(name)), name)


TaskName = Annotated[str, AfterValidator(task_name)]
TaskNames = Annotated[tuple[TaskName, ...], _ARRAY, AfterValidator(_distinct)]
Shares = Annotated[tuple[PositiveShare, ...], _ARRAY, AfterValidator(_ascending)]


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
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

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
