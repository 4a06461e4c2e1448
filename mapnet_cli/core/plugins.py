"""Entries that other installed packages add to mapnet's tables, by entry points of the groups `mapnet.KIND`.

Their names are known without importing anything; a plugin is imported when its entry is used.
"""

from collections import UserDict
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from mapnet_cli.core.artifacts import record_checksum, sha256
from mapnet_cli.core.errors import PluginError

T = TypeVar("T")
_IMPORTED: dict[str, str] = {}  # hash of the code of each package, by name, when this process first used it


class Registry(UserDict[str, T]):
    """mapnet's own entries by name, and behind them those of plugins. Raises PluginError for one that can't be used."""

    def __init__(self, kind: str, entry: type[T], functions: tuple[str, ...], own: Mapping[str, T]) -> None:
        """A plugin's entry must be an instance of `entry` with at least one of the functions."""
        super().__init__(own)
        self.kind, self.entry, self.functions = kind, entry, functions
        self._used: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.data, *plugin_names(self.kind)]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self.data or name in _installed(self.kind)

    def __getitem__(self, name: str) -> T:
        plugin = find_plugin(self.kind, name, self.data)
        if plugin is None and name not in self.data:
            raise PluginError(f"no package with the entry point {name!r} of mapnet.{self.kind} is installed here")
        if plugin is None:
            return self.data[name]
        if name not in self._used:
            self._used[name] = self._loaded(plugin)
        return self._used[name]

    def _loaded(self, plugin: EntryPoint) -> T:
        plugin_code(self.kind, plugin.name)  # from here on, it must not change
        try:
            found = plugin.load()
        except Exception as error:  # whatever its code raises
            raise PluginError(f"{_place(plugin)} can't be imported: {type(error).__name__}: {error}") from error
        if not isinstance(found, self.entry):
            what = f"is a {type(found).__name__}, but must be a {self.entry.__module__}.{self.entry.__name__}"
            raise PluginError(f"{_place(plugin)}: {plugin.value} {what}")
        if not any(callable(getattr(found, name)) for name in self.functions):
            raise PluginError(f"{_place(plugin)}: {plugin.value} has no function {' or '.join(self.functions)}")
        return found


def find_plugin(kind: str, name: str, own: Mapping[str, object] | tuple[str, ...] = ()) -> EntryPoint | None:
    """Returns the entry point of a plugin, or None. Raises PluginError if two have the name, or mapnet itself."""
    found = _installed(kind).get(name, [])
    if len(found) > 1:
        raise PluginError(f"{' and '.join(map(_place, found))} have the same name: uninstall one of the packages")
    if found and name in own:
        raise PluginError(f"{_place(found[0])} has the name of one of mapnet's own {kind}: rename it or uninstall it")
    return found[0] if found else None


def plugin_code(kind: str, name: str) -> dict[str, str]:
    """Returns a plugin's object reference and a hash of all files of its package; {} if no plugin has the name.

    Imports nothing. Raises PluginError if the files have changed since this process first used them.
    """
    if (plugin := find_plugin(kind, name)) is None:
        return {}
    package = plugin.module.partition(".")[0]
    if (spec := find_spec(package)) is None:
        raise PluginError(f"{_place(plugin)}: there is no module {package!r}")
    hashes = dict[str, str]()
    for root in map(Path, spec.submodule_search_locations or [spec.origin or ""]):
        files = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
        kept = (path for path in files if "__pycache__" not in path.parts)
        hashes |= {path.relative_to(root.parent).as_posix(): sha256(path) for path in kept}
    digest = record_checksum(hashes)
    if _IMPORTED.setdefault(package, digest) != digest:
        raise PluginError(f"{_place(plugin)}: its code has changed during this run: start again")
    return {plugin.value: digest}


def plugin_names(kind: str) -> list[str]:
    """Returns the names of the installed plugins of a kind."""
    return [*_installed(kind)]


@cache
def _installed(kind: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for plugin in entry_points(group=f"mapnet.{kind}"):
        found.setdefault(plugin.name, []).append(plugin)
    return found


def _place(plugin: EntryPoint) -> str:
    package = f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else "an unknown package"
    return f"plugin {plugin.name!r} ({plugin.group} of {package})"
