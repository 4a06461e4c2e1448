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

from mapnet_cli.config import PROPOSALS, Config
from mapnet_cli.config.method import MOVED, OLD_DEFAULTS
from mapnet_cli.core import UsageError, did_you_mean

RECIPES = ("demo", "small", "paper")
ENV_PREFIX = "MAPNET_"


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
        hint = did_you_mean(name, RECIPES)
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
        raise UsageError(f"config file {file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config file {file} can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"config file {file} is not valid TOML: {error}") from None


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            _set_dotted(values, name[len(ENV_PREFIX) :].lower().replace("__", "."), environ[name], name)
    return Layer(values, "environment", {})


def _command_line_layer(overrides: Iterable[str]) -> Layer:
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text!r} is not of the form section.key=value")
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
        origin = _origin(key, origins) or next((o for k, o in origins.items() if key and k.startswith(f"{key}.")), "")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = _moved(path, item["input"]) or "unknown key" + did_you_mean(
                path[-1], _known_keys(path[:-1], values)
            )
        elif item["type"] not in ("value_error", "union_tag_invalid"):
            message += f", but got {item['input']!r}"
        problems.append(f"{key or 'config'}{f' ({origin})' if origin else ''}: {message}")
    return "\n".join(problems)


def _without_tags(path: list[str]) -> list[str]:
    """Returns a problem's path without the discriminator that pydantic inserts after "proposal"."""
    return [part for n, part in enumerate(path) if not (n == 3 and path[2] == "proposal" and part in PROPOSALS)]


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
