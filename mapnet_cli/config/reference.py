"""Every key of the config with its default and what it means, from the sections' own docstrings."""

import json
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic_core import PydanticUndefined

from mapnet_cli.config.base import Section

HEADER = """\
# Every key of the config

Made by `mapnet config keys`. A value is taken from the last of these that has it: the default, the shipped methods, the
recipe, the config file, the environment (`MAPNET_PRETRAIN__STEPS=100`), `--set pretrain.steps=100`. A file that names
no recipe starts from the defaults, which are the paper's values. `mapnet config show` prints what is in force and where
it is from. Keys with a * change how the work is done, not what comes out: changing them reruns nothing.
"""


def reference(config: type[Section]) -> str:
    """Returns Markdown: a table for each section, a row a key."""
    parts = [HEADER]
    for name, section in [("", config), *_sections(config, "")]:
        heading = f"## {name or 'Top level'}\n\n| key | default | meaning |\n| --- | --- | --- |\n"
        rows = [row for field in section.model_fields if (row := _row(section, field))]
        if rows:
            parts.append(heading + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _sections(section: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    """Yields the sections below one, with their TOML headings."""
    for name, field in section.model_fields.items():
        if (found := _inner(field.annotation)) is not None:
            inner, form = found
            dotted = f"{prefix}{name}"
            yield form.format(dotted), inner
            yield from _sections(inner, f"{dotted}.")


def _inner(annotation: Any) -> tuple[type[Section], str] | None:
    """Returns the section that a field holds, one, by name or in a list, and the form of its heading."""
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict and _is_section(arguments[1]):
        return arguments[1], "[{}.NAME]"
    if typing.get_origin(annotation) is tuple and _is_section(arguments[0]):
        return arguments[0], "[[{}]]"
    return (annotation, "[{}]") if _is_section(annotation) else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _row(section: type[Section], name: str) -> str:
    """Returns a key's row, "" for a key that holds sections."""
    field = section.model_fields[name]
    if _inner(field.annotation) is not None:
        return ""
    default = field.get_default(call_default_factory=True)
    shown = "" if default is PydanticUndefined else f"`{json.dumps(default)}`"
    extra = field.json_schema_extra
    mark = " *" if isinstance(extra, dict) and extra.get("operational") else ""
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    meaning = " ".join((field.description or "").split())
    if choices:
        meaning = f"{' or '.join(f'`{json.dumps(choice)}`' for choice in choices)}. {meaning}".strip()
    return f"| `{name}`{mark} | {shown} | {meaning.replace('|', chr(92) + '|')} |"
