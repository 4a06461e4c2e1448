"""Messages about values that the config doesn't accept: the key, its origin, what it must be, the closest valid key."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from itertools import chain
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mapnet_cli.config import PROPOSALS, Config
from mapnet_cli.config.base import Section
from mapnet_cli.config.reference import inner_sections
from mapnet_cli.core import did_you_mean

T = TypeVar("T")
_EXPECTED: dict[str, str] = tomllib.loads((files(__package__) / "expected.toml").read_text("utf-8"))
"""What a value must be, by pydantic's type of the error, with fields of its context."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {dotted key: leaf value}; lists are leaves."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_table = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_table else {f"{prefix}{key}": value}
    return flat


def innermost(key: str, known: Mapping[str, T]) -> T | None:
    """Returns what is known of a key or else of the innermost table around it, None if nothing is."""
    while key and key not in known:
        key = key.rpartition(".")[0]
    return known[key] if key else None


def explain(error: ValidationError, values: dict[str, Any], origins: Mapping[str, str]) -> str:
    """Returns one line per problem: key, origin, what is wrong, closest valid key."""
    problems = []
    for item in error.errors():
        path = _without_tags([str(part) for part in item["loc"]])
        key = ".".join(path)
        origin = innermost(key, origins) or next((o for k, o in origins.items() if k.startswith(f"{key}.")), "")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            near, others = did_you_mean(path[-1], _known_keys(path[:-1], values)), elsewhere(path[-1])
            if near and others:
                near, others = near.removesuffix("?"), others.replace("; did you mean", " or")
            message = f"unknown key{near}{others}"
        elif item["type"] not in ("value_error", "union_tag_invalid"):
            known = _EXPECTED.get(item["type"])
            expected = known.format(**item.get("ctx", {})) if known else item["msg"]
            message = f"{expected}, but got {item['input']!r}{_advice(item, key, origin)}"
        if not key and ": " in message:  # a problem of several keys, whose message begins with one of them
            key, _, message = message.partition(": ")
            origin = origins.get(key, "")
        where = f"{key}{f' ({origin})' if origin else ''}: " if key else ""
        problems.append(where + message)
    return "\n".join(dict.fromkeys(problems))


def _advice(item: ErrorDetails, key: str, origin: str) -> str:
    """Returns how to write a value of another type, "" if that isn't clear."""
    kind, value = item["type"], item["input"]
    quotes = ", in quotes for the shell" if origin in ("--set", "environment") else ""
    if _EXPECTED.get(kind) == "must be a table":
        off = "; false turns it off" if key.endswith(".electra") else ""
        return f"; set keys in it: {key}.KEY = VALUE{off}"
    if kind == "tuple_type" and key == "corpus.sources":
        table = isinstance(value, dict) and not quotes
        return "; write [[corpus.sources]] above each source" if table else f'; write [{{path = "FILE"}}]{quotes}'
    if kind == "tuple_type" and isinstance(value, int | float | str):
        separator = r"[,\s]+" if re.fullmatch(r"[\d.e+\s-]+", str(value)) else ","
        words = [word.strip(" \"'") for word in re.split(separator, str(value).strip("()[]{} "))]
        quoted = [word if re.fullmatch(r"[\d.e+-]+", word) else f'"{word}"' for word in words if word]
        return f"; write [{', '.join(quoted)}]" + (quotes if '"' in "".join(quoted) else "")
    if (
        kind in ("int_type", "float_type")
        and re.fullmatch(r"[\d.e+-]*\d[\d.e+-]*", str(value))
        and isinstance(value, str)
    ):
        return f"; write {value} without quotes"
    return f"; write {value:.0f}" if kind == "int_type" and isinstance(value, float) and value.is_integer() else ""


def elsewhere(name: str) -> str:
    """Returns a hint with the keys of this name in all sections."""
    found = [key for key in flatten(Config.model_construct().model_dump()) if key.rpartition(".")[2] == name]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _without_tags(path: list[str]) -> list[str]:
    """Returns a problem's path without what pydantic inserts: the kind of a proposal, and types of a union."""
    kinds = PROPOSALS if path[2:3] == ["proposal"] else ()
    path = [part for place, part in enumerate(path) if place != 3 or part not in kinds]
    return [part for part in path if not re.match(r"(str|int)$|tuple\[", part)]


def _known_keys(path: list[str], values: dict[str, Any]) -> list[str]:
    """Returns the keys of the section at `path`. Names of methods and numbers of sources lead to no other section."""
    if path[:1] == ["method"] and path[2:] == ["proposal"]:
        return list(PROPOSALS[values["method"][path[1]]["strategy"]].model_fields)
    sections: list[type[Section]] = [Config]
    for part in path:
        inner = [inner_sections(one.model_fields[part].annotation)[0] for one in sections if part in one.model_fields]
        sections = [*chain.from_iterable(inner)] or sections
    return [key for section in sections for key in section.model_fields]
