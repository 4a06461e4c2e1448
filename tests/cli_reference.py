"""The reference of the command line as Markdown: python -m tests.cli_reference > docs/cli.md"""

from collections import Counter
from typing import Any

from typer.main import get_command

from mapnet_cli.cli.commands import app
from mapnet_cli.cli.options import PANELS

HEADER = """# Commands and their options

`mapnet COMMAND --help` prints the same in the terminal. `mapnet --version` (`-V`) prints the version, and
`mapnet --install-completion` sets up completion in your shell.
"""
EXIT_CODES = """
## Exit codes

| code | meaning |
| --- | --- |
| 0 | success |
| 1 | any other error, for instance a full disk |
| 2 | wrong option or config value: the message names the key, its location and the closest valid one |
| 3 | input data missing or malformed: file and line |
| 4 | one of mapnet's own files is damaged |
| 5 | another process is working on the same stage of this artifact directory |
| 6 | training diverged; the last good checkpoint is kept |
| 130 | interrupted; run the same command to resume |
"""
GROUPS = {
    "a config": ("--recipe", "--config", "--set", "--artifacts"),
    "running jobs": ("--workers", "--engine", "--ray-address", "--dry-run", "--force"),
    "output": ("--quiet", "--verbose", "--log-file", "--json"),
}
"""Shared options by what they are about; a command that has all of them names the group."""
Option = tuple[str, str]


def described(parameter: Any) -> Option:
    """Returns an option's or argument's names and what it does, as cells of a table."""
    flag = parameter.is_flag if parameter.param_type_name == "option" else True
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    shown = (
        ""
        if flag or default is None or callable(default) or str(default) in parameter.help
        else f" Default: {default}."
    )
    return names, f"{parameter.help}{shown}".replace("|", "\\|").replace("[", "\\[")


def table(title: str, rows: list[Option]) -> str:
    return "\n".join([f"| {title} | |", "| --- | --- |", *(f"| {names} | {text} |" for names, text in rows)])


def grouped(names: list[str]) -> str:
    """Returns names of shared options, or of their groups where a command has the whole group."""
    parts = []
    for group, members in GROUPS.items():
        own = [f"`{name}`" for name in members if name in names]
        parts += [f"those of {group}"] if len(own) == len(members) else own
    return ", ".join(parts)


def reference() -> str:
    """Returns the page: options that several commands share, then each command with its own."""
    found: dict[str, Any] = dict(get_command(app).commands)
    found |= {f"config {name}": command for name, command in found.pop("config").commands.items()}
    options = {name: [described(p) for p in command.params if p.name != "help"] for name, command in found.items()}
    uses = Counter(option for each in options.values() for option in each)
    shared = [option for option in uses if uses[option] > 3]
    parts = [HEADER]
    for panel, names in PANELS.items():
        parts.append(f"## {panel}\n")
        for name in (one for one in found if one.split()[0] in names):
            own = [option for option in options[name] if option not in shared]
            common = [option[0].split(", ")[0].strip("`") for option in options[name] if option in shared]
            parts.append(f"### mapnet {name}\n\n{found[name].help}\n")
            parts += [f"{table('option', own)}\n"] if own else []
            parts += [f"Shared options: {grouped(common)}.\n"] if common else []
    parts.append("## Shared options\n")
    for group, members in GROUPS.items():
        rows = [option for name in members for option in shared if option[0].split(", ")[0] == f"`{name}`"]
        parts.append(f"{table(f'of {group}', rows)}\n")
    return "\n".join(parts) + EXIT_CODES


if __name__ == "__main__":
    print(reference(), end="")
