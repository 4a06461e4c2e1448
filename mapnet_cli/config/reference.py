"""Every key of the config with its default and what it means, from the sections' own docstrings."""

import json
import typing
from collections.abc import Iterable, Iterator, Mapping
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


def reference(config: type[Section], choices: Mapping[str, Iterable[str]]) -> str:
    """Returns Markdown: one table per section. `choices` are the values of keys that name an entry of a table."""
    parts = [HEADER]
    for name, section in [("", config), *_sections(config, "")]:
        heading = f"## {name or 'Top level'}\n\n| key | default | meaning |\n| --- | --- | --- |\n"
        rows = [row for field in section.model_fields if (row := _row(section, field, choices))]
        if rows:
            parts.append(heading + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _sections(section: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    """Yields the sections below one, with their TOML headings."""
    for name, field in section.model_fields.items():
        inner, form = _inner(field.annotation)
        dotted = form.format(f"{prefix}{name}")
        for one in inner:
            kind = one.model_fields["kind"].default if len(inner) > 1 else ""
            yield f"[{dotted}]" + (f', strategy "{kind}"' if kind else ""), one
            yield from _sections(one, f"{dotted}.")


def _inner(annotation: Any) -> tuple[list[type[Section]], str]:
    """Returns the sections that a field may hold, and the form of their headings; none for a plain value."""
    if typing.get_origin(annotation) is Annotated:
        return _inner(typing.get_args(annotation)[0])
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return [arg for arg in arguments[1:] if _is_section(arg)], "{}.NAME"
    if typing.get_origin(annotation) is tuple:
        return [arg for arg in arguments if _is_section(arg)], "[{}]"
    if arguments:  # one of several, or none
        return [section for arg in arguments for section in _inner(arg)[0]], "{}"
    return ([annotation] if _is_section(annotation) else []), "{}"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _row(section: type[Section], name: str, choices: Mapping[str, Iterable[str]]) -> str:
    """Returns a key's row, "" for a key that holds sections or has a single value (a proposal's kind)."""
    field = section.model_fields[name]
    literal = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    if _inner(field.annotation)[0] or len(literal) == 1:
        return ""
    default = field.get_default(call_default_factory=True)
    shown = "" if default is PydanticUndefined or default is None else f"`{json.dumps(default)}`"
    extra = field.json_schema_extra
    mark = " *" if isinstance(extra, dict) and extra.get("operational") else ""
    names = [f"`{json.dumps(choice)}`" for choice in literal or choices.get(name, ())]
    meaning = " ".join((field.description or "").split())
    meaning = f"{' or '.join(names)}. {meaning}".strip() if names else meaning
    return f"| `{name}`{mark} | {shown} | {meaning.replace('|', chr(92) + '|')} |"
