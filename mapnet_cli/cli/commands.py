"""The command line of `mapnet`: all commands, by what they are about."""

import json
import sys
from typing import Annotated

import typer

from mapnet_cli import __version__
from mapnet_cli.cli import models, results, running
from mapnet_cli.cli.options import LOOKING, Invocation, command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Variance-reduced language-model pretraining with a mask proposal network (MAP-Net), from raw text to Table 3."
    "\n\n"
    "All commands share one config and one artifact directory. Start with: mapnet run --recipe demo",
)
machine = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Show the config and its keys.")
for group in (running.group, results.group, models.group, machine):
    app.add_typer(group)
app.add_typer(config_app, name="config")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mapnet {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@command(config_app, "show", LOOKING)
def config_show(invocation: Invocation) -> None:
    """Print the resolved config with the origin of each value."""
    from mapnet_cli.config.explain import flatten

    values, origins = flatten(invocation.config.model_dump(mode="json")), invocation.resolved.origins
    for name, method in invocation.config.method.items():  # the defaults depend on the strategy
        values |= zip((f"method.{name}.explore_{end}" for end in ("start", "end")), method.exploration, strict=True)
    record = {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
    lines = (f"{f'{key} = {json.dumps(value)}':<60} # {origins[key]}" for key, value in values.items())
    invocation.console.result(record, "\n".join(lines))


@config_app.command("keys")
def config_keys() -> None:
    """Print every key with its default and meaning, as Markdown (docs/config.md)."""
    from mapnet_cli.config import Config
    from mapnet_cli.config.reference import reference
    from mapnet_cli.masking import CHOICES

    typer.echo(reference(Config, CHOICES), nl=False)


@command(machine, "doctor", LOOKING)
def doctor(invocation: Invocation) -> None:
    """Show versions, memory, disk, threads and GPUs, for bug reports."""
    import platform
    import shutil

    from mapnet_cli.core import main_memory, visible_gpus
    from mapnet_cli.jobs import cores, library_versions

    total, available = main_memory()
    artifacts = invocation.artifacts.root.resolve()
    free = shutil.disk_usage(next(path for path in (artifacts, *artifacts.parents) if path.exists())).free
    rows = {
        "platform": platform.platform(),
        "python": f"{platform.python_version()} at {sys.executable}",
        **{name: version for name, version in library_versions().items() if name != "python"},
        "cores": str(cores()),
        "memory": f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB available" if total else "unknown",
        "artifacts": f"{artifacts}, {free / 1e9:.1f} GB free",
        "gpus": str(visible_gpus()),
    }
    try:
        import torch

        rows["torch threads"] = str(torch.get_num_threads())
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            rows[f"gpu {index}"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    except ImportError as error:
        rows["torch"] = f"can't be imported: {error}"
    invocation.console.result(rows, "\n".join(f"{name:<16} {value}" for name, value in rows.items()))


def main() -> None:
    """Runs the command line. On terminals that aren't UTF-8, other characters are replaced by similar ones."""
    from mapnet_cli.core import spell_out

    spell_out(sys.stdout, sys.stderr)
    app(prog_name="mapnet")
