"""Loads the config by merging layers of values, and records the origin of each key.

Precedence, lowest first: defaults, shipped methods, recipe, config file, environment
(`MAPNET_PRETRAIN__STEPS=100`), command line (`--set pretrain.steps=100`).
"""

import os
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mapnet_cli.config import PROPOSALS, Config
from mapnet_cli.config.method import MOVED, OLD_DEFAULTS
from mapnet_cli.core import UsageError, did_you_mean, system_error

RECIPES = ("demo", "small", "paper")
ENV_PREFIX = "MAPNET_"
_EXPECTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    "missing": "must have this entry",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must consist of letters, digits, - and _",
}
"""What a value must be, by pydantic's type of the error, with fields of its context."""


@dataclass(frozen=True)
class Layer:
    """One source of values: a nested table, and the line number of each dotted key."""

    values: dict[str, Any]
    name: str
    lines: Mapping[str, int]

    def origin(self, key: str) -> str:
        """Returns "NAME:LINE" of the key or of the innermost table around it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.name}:{self.lines[key]}" if key else self.name


@dataclass(frozen=True)
class Resolved:
    """A valid config and the origin ("demo.toml:12", "--set", "default") of each leaf."""

    config: Config
    origins: dict[str, str]


def resolve(
    recipe: str | None = None,
    file: Path | None = None,
    overrides: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Resolved:
    """Returns the config merged from all layers.

    Raises UsageError if a value is invalid, naming the key, its origin and the closest valid key.
    """
    layers = [_recipe_layer("methods")]
    file_layer = _file_layer(file) if file else None
    in_file = file_layer.values.pop("recipe", "") if file_layer else "demo"
    named = recipe or in_file
    if named:
        layers.append(_recipe_layer(named))
    layers += [file_layer] if file_layer else []
    layers += [_environment_layer(environ), _command_line_layer(overrides)]

    values: dict[str, Any] = {"recipe": named}
    origins: dict[str, str] = {"recipe": "command line" if recipe else (str(file) if file else "default")}
    for layer in layers:
        if "recipe" in layer.values:
            raise UsageError(f"recipe ({layer.name}): set the recipe with --recipe or in the config file")
        _merge(values, layer.values, "", layer, origins)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, values, origins)) from None
    return Resolved(
        config, {key: _origin(key, origins) or "default" for key in flatten(config.model_dump(mode="json"))}
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {dotted key: leaf value}; lists are leaves."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _merge(into: dict[str, Any], new: Mapping[str, Any], prefix: str, layer: Layer, origins: dict[str, str]) -> None:
    if prefix.startswith("method.") and into.get("strategy") != new.get("strategy", into.get("strategy")):
        into.pop("proposal", None)  # of a lower layer's strategy
    for key, value in new.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict):
            _merge(into.setdefault(key, {}), value, f"{dotted}.", layer, origins)
        else:
            into[key] = value
        if not isinstance(value, dict) or not value:
            origins[dotted] = layer.origin(dotted)


def _recipe_layer(name: str) -> Layer:
    if name != "methods" and name not in RECIPES:
        is_file = Path(name).suffix or Path(name).exists()
        hint = f"; a file is given with --config {name}" if is_file else did_you_mean(name, RECIPES)
        raise UsageError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}{hint}")
    text = resources.files("mapnet_cli").joinpath(f"recipes/{name}.toml").read_text(encoding="utf-8")
    return Layer(
        tomllib.loads(text), f"recipe {name}" if name != "methods" else "shipped methods.toml", _key_lines(text)
    )


def _file_layer(file: Path) -> Layer:
    try:
        text = file.read_text(encoding="utf-8")
        return Layer(tomllib.loads(text), str(file), _key_lines(text))
    except FileNotFoundError:
        hint = f"; a recipe is given with --recipe {file}" if str(file) in RECIPES else ""
        raise UsageError(f"config file {file} does not exist{hint}") from None
    except OSError as error:
        raise UsageError(f"config file {system_error(error)}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"config file {file} is not UTF-8 text (byte 0x{error.object[error.start]:02x})") from None
    except tomllib.TOMLDecodeError as error:
        advice = "; text needs quotes, and true and false have no capitals" if "Invalid value" in str(error) else ""
        if file.suffix in (".yaml", ".yml", ".json"):
            advice = "; write [section] on one line and key = value on the next ones"
        raise UsageError(f"config file {file} is not valid TOML: {error}{advice}") from None


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    """Variables without "__" that resemble no key (MAPNET_HOME) are not mapnet's."""
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            if "." in key or key in Config.model_fields:
                _set_dotted(values, key, environ[name], name)
            elif hint := _elsewhere(key) or did_you_mean(key, Config.model_fields):
                names = re.sub("'(.+?)'", lambda m: ENV_PREFIX + m[1].upper().replace(".", "__"), hint)
                raise UsageError(f"{name} (environment): unknown key{names}")
    return Layer(values, "environment", {})


def _command_line_layer(overrides: Iterable[str]) -> Layer:
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text!r} is not of the form section.key=value, without spaces around =")
        _set_dotted(values, key.strip(), value.strip(), f"--set {text}")
    return Layer(values, "--set", {})


def _set_dotted(values: dict[str, Any], dotted: str, text: str, where: str) -> None:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: --set finetune.data=probe
    *tables, key = dotted.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {table!r} is a value, not a section")
    values[key] = value


def _key_lines(text: str) -> dict[str, int]:
    """Returns the line number of every `[table]` and `key =` in a TOML text (tomllib doesn't provide them)."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$", line):
            table = header[1].replace('"', "")
            lines[table] = number
        elif entry := re.match(r"\s*([\w.\-\"]+)\s*=", line):
            key = entry[1].replace('"', "")
            lines[f"{table}.{key}" if table else key] = number
    return lines


def _origin(key: str, origins: Mapping[str, str]) -> str:
    while key:
        if key in origins:
            return origins[key]
        key = key.rpartition(".")[0]
    return ""


def _explain(error: ValidationError, values: dict[str, Any], origins: Mapping[str, str]) -> str:
    """Returns one line per problem: key, origin, what is wrong, closest valid key."""
    problems = []
    for item in error.errors():
        path = _without_tags([str(part) for part in item["loc"]])
        key = ".".join(path)
        origin = _origin(key, origins) or next((o for k, o in origins.items() if k.startswith(f"{key}.")), "")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            near = did_you_mean(path[-1], _known_keys(path[:-1], values)) or _elsewhere(path[-1])
            message = _moved(path, item["input"]) or f"unknown key{near}"
        elif item["type"] not in ("value_error", "union_tag_invalid"):
            known = _EXPECTED.get(item["type"])
            expected = known.format(**item.get("ctx", {})) if known else item["msg"]
            message = f"{expected}, but got {item['input']!r}{_advice(item, key)}"
        where = f"{key}{f' ({origin})' if origin else ''}: " if key else ""  # without a key, the message has it
        problems.append(where + message)
    return "\n".join(dict.fromkeys(problems))


def _advice(item: ErrorDetails, key: str) -> str:
    """Returns how to write a value of another type, "" if that isn't clear."""
    kind, value = item["type"], item["input"]
    if _EXPECTED.get(kind) == "must be a table":
        off = "; false turns it off" if key.endswith(".electra") else ""
        return f"; set keys in it: {key}.KEY = VALUE{off}"
    if kind == "tuple_type" and key == "corpus.sources":
        return '; write [{path = "FILE"}], in quotes for the shell'
    if kind == "tuple_type" and isinstance(value, int | float | str):
        words = [word.strip(" \"'") for word in str(value).strip("()[]{} ").split(",")]
        quoted = [word if re.fullmatch(r"[\d.e+-]+", word) else f'"{word}"' for word in words if word]
        return f"; write [{', '.join(quoted)}]" + (", in quotes for the shell" if '"' in "".join(quoted) else "")
    return f"; write {value:.0f}" if kind == "int_type" and isinstance(value, float) and value.is_integer() else ""


def _elsewhere(name: str) -> str:
    """Returns a hint with the keys of this name in all sections."""
    found = [key for key in flatten(Config.model_construct().model_dump()) if key.rpartition(".")[2] == name]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _without_tags(path: list[str]) -> list[str]:
    """Returns a problem's path without what pydantic inserts: the kind of a proposal, and types of a union."""
    kinds = PROPOSALS if path[2:3] == ["proposal"] else ()
    return [
        part for n, part in enumerate(path) if not (n == 3 and part in kinds) and not re.match(r"str$|tuple\[", part)
    ]


def _moved(path: list[str], value: object) -> str:
    """Returns what to do about a key of version 0.1, "" for any other key."""
    if len(path) != 3 or path[0] != "method" or path[2] not in MOVED:
        return ""
    _, method, key = path
    if key == "task":
        new = f"add the table [method.{method}.electra]" if value == "replaced-token" else "remove it"
        return f"this key is gone: {new}"
    if value == OLD_DEFAULTS.get(key):
        return f"this key is now method.{method}.{MOVED[key]}; {value!r} was the default, so remove it"
    note = " (with strategy 'mapnet', estimator now defaults to 'sequence-ratio', objective to 'pairwise')"
    return f"this key is now method.{method}.{MOVED[key]}{note if key in ('estimator', 'objective') else ''}"


def _known_keys(path: list[str], values: dict[str, Any]) -> list[str]:
    """Returns the keys of the section at `path`, found by walking the models' annotations."""
    if path[:1] == ["method"] and path[2:] == ["proposal"]:
        return list(PROPOSALS[values["method"][path[1]]["strategy"]].model_fields)
    annotation: Any = Config
    for part in path:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        if typing.get_origin(annotation) is dict:  # a method's name
            annotation = typing.get_args(annotation)[1]
        elif typing.get_origin(annotation) is tuple:  # an index
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and part in annotation.model_fields:
            annotation = annotation.model_fields[part].annotation
            annotation = next(iter(typing.get_args(annotation)), annotation) if _optional(annotation) else annotation
        else:
            return []
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _optional(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)
