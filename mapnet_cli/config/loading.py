"""Loads the config by merging layers of values, and records the origin of each key.

Precedence, lowest first: defaults, shipped methods, recipe, config.json of `base`, config file, environment
(`MAPNET_PRETRAIN__STEPS=100`), command line (`--set pretrain.steps=100`).
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mapnet_cli.config import Config
from mapnet_cli.config.base import RESERVED, VALID_NAME, task_name
from mapnet_cli.config.effect import without_effect
from mapnet_cli.config.explain import elsewhere, explain, flatten, innermost
from mapnet_cli.config.hugging_face import read_config, require_folder, sizes_of
from mapnet_cli.core import InputError, UsageError, did_you_mean, system_error, whole_file

RECIPES = ("demo", "small", "paper", "continue")
ENV_PREFIX = "MAPNET_"
TASKS = ("finetune.task_data.", "finetune.metrics.")  # tables whose keys are names of tasks, in any spelling
_UNDERSCORED = {key.replace(".", "_"): key for key in flatten(Config.model_construct().model_dump()) if "." in key}
LARGEST, LARGEST_NUMBER = 1 << 22, 1 << 63  # maximum size of a config file in bytes, and of a number in it


@dataclass(frozen=True)
class Layer:
    """One source of values: a nested table, and the line number of each dotted key."""

    values: dict[str, Any]
    name: str
    lines: Mapping[str, int]

    def origin(self, key: str) -> str:
        """Returns "NAME:LINE" of the key or of the innermost table around it."""
        line = innermost(key, self.lines)
        return f"{self.name}:{line}" if line else self.name


@dataclass(frozen=True)
class Resolved:
    """A valid config, the origin ("demo.toml:12", "--set", "default") of each leaf, and warnings for the user."""

    config: Config
    origins: dict[str, str]
    warnings: tuple[str, ...]


def resolve(
    recipe: str | None = None,
    file: Path | None = None,
    overrides: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Resolved:
    """Returns the config merged from all layers; raises UsageError with key, origin and the closest valid key."""
    try:
        return _resolve(recipe, file, overrides, environ)
    except RecursionError:
        raise UsageError("the config is nested too deeply") from None


def _resolve(recipe: str | None, file: Path | None, overrides: Iterable[str], environ: Mapping[str, str]) -> Resolved:
    layers = [_recipe_layer("methods")]
    file_layer = _file_layer(file) if file else None
    in_file = file_layer.values.pop("recipe", "") if file_layer else "demo"
    if not isinstance(in_file, str):
        raise UsageError(f"recipe ({file}): must be one of {', '.join(RECIPES)} in quotes, but got {in_file!r}")
    named = recipe or in_file
    if named:
        layers.append(_recipe_layer(named))
    above = [*([file_layer] if file_layer else []), _environment_layer(environ), _command_line_layer(overrides)]
    base, origin = next(
        ((layer.values["base"], layer.origin("base")) for layer in reversed(above) if layer.values.get("base")),
        ("", ""),
    )
    if not isinstance(base, str):
        raise UsageError(f"base ({origin}): must be the path of a folder in quotes, but got {base!r}")
    if base:
        layers.append(_base_layer(base))
    elif named == "continue":
        raise UsageError(
            'recipe continue needs base: set it to the folder of a model, base = "path/to/bert-base-uncased"'
        )
    layers += above

    values: dict[str, Any] = {"recipe": named}
    origins: dict[str, str] = {"recipe": "command line" if recipe else (str(file) if file else "default")}
    for layer in layers:
        if "recipe" in layer.values:
            raise UsageError(f"recipe ({layer.name}): set the recipe with --recipe or in the config file")
        _merge(values, layer.values, "", layer, origins)
    for name in values.get("methods", Config.model_fields["methods"].default) if base else ():
        if isinstance(method := values["method"].get(name), dict) and "init_from" not in method:
            method["init_from"], origins[f"method.{name}.init_from"] = base_name(base), "base"
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(explain(error, values, origins)) from None
    keys = flatten(config.model_dump(mode="json"))
    given = {key: layer.origin(key) for layer in above for key in flatten(layer.values)}
    resolved = {key: innermost(key, origins) or "default" for key in keys}
    return Resolved(config, resolved, tuple(without_effect(config, given)))


def _merge(into: dict[str, Any], new: Mapping[str, Any], prefix: str, layer: Layer, origins: dict[str, str]) -> None:
    if prefix.startswith("method.") and into.get("strategy") != new.get("strategy", into.get("strategy")):
        into.pop("proposal", None)  # of a lower layer's strategy
    for key, value in new.items():
        name = task_name(key) if prefix in TASKS else key
        dotted = f"{prefix}{name}"
        if nested := isinstance(value, dict) and isinstance(into.get(name, {}), dict):
            _merge(into.setdefault(name, {}), value, f"{dotted}.", layer, origins)
        else:
            into[name] = value
        if not nested or not value:
            origins[dotted] = layer.origin(f"{prefix}{key}")
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int) and abs(number) > LARGEST_NUMBER:
                    raise UsageError(f"{dotted} ({layer.origin(dotted)}): the number is too large")


def _recipe_layer(name: str) -> Layer:
    if name != "methods" and name not in RECIPES:
        is_file = Path(name).suffix or Path(name).exists()
        hint = f"; a file is given with --config {name}" if is_file else did_you_mean(name, RECIPES)
        raise UsageError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}{hint}")
    text = resources.files("mapnet_cli").joinpath(f"recipes/{name}.toml").read_text(encoding="utf-8")
    shown = f"recipe {name}" if name != "methods" else "shipped methods.toml"
    return Layer(tomllib.loads(text), shown, _key_lines(text))


def base_name(base: str) -> str:
    """Returns the name under which the folder `base` is imported: its own, or where that can't be one, base-NAME."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(base).resolve().name).strip("-")
    taken = name.lower() in (*RESERVED, *_recipe_layer("methods").values["method"])
    return f"base-{name}" if taken or not VALID_NAME.fullmatch(name) else name


def _base_layer(base: str) -> Layer:
    """The encoder's sizes, its tokenizer, and a row of Table 3. Raises InputError if the folder has no config.json."""
    require_folder(Path(base))
    file, name = Path(base) / "config.json", base_name(base)
    values = {"imports": [name], "corpus": {"tokenizer": name}, "encoder": sizes_of(read_config(file)[1])}
    return Layer(values, str(file), {})


def _file_layer(file: Path) -> Layer:
    try:
        text = whole_file(file, LARGEST).decode("utf-8-sig")
        return Layer(tomllib.loads(text), str(file), _key_lines(text))
    except FileNotFoundError:
        hint = f"; a recipe is given with --recipe {file}" if str(file) in RECIPES else ""
        raise UsageError(f"config file {file} does not exist{hint}") from None
    except OSError as error:
        raise UsageError(f"config file {system_error(error)}") from None
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte 0x{error.object[error.start]:02x}): save it as UTF-8"
        raise UsageError(f"config file {file} {what}") from None
    except InputError as error:
        raise UsageError(f"config file {error}") from None
    except ValueError as error:  # a TOMLDecodeError, or a number of thousands of digits
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
            elif hint := elsewhere(key) or did_you_mean(key, [*_UNDERSCORED, *Config.model_fields]):
                hint = re.sub("'(.+?)'", lambda match: repr(_UNDERSCORED.get(match[1], match[1])), hint)
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
    except ValueError:
        value = text  # a bare word is a string: --set finetune.data=probe
    *tables, key = parts = dotted.split(".")
    if "" in parts:
        raise UsageError(f"{where}: {dotted!r} is not of the form section.key")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {table!r} is a value, not a section")
    values[key] = value


def _key_lines(text: str) -> dict[str, int]:
    """Returns the line number of every `[table]` and `key =` in a TOML text (tomllib doesn't provide them)."""
    lines, table = dict[str, int](), ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$", line):
            table = header[1].replace('"', "")
            lines[table] = number
        elif entry := re.match(r"\s*([\w.\-\"]+)\s*=", line):
            key = entry[1].replace('"', "")
            lines[f"{table}.{key}" if table else key] = number
    return lines
