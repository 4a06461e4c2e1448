"""The command line of `mapnet`: all commands, by what they are about."""

import json
import sys
from typing import Annotated

import typer

from mapnet_cli import __version__
from mapnet_cli.cli import housekeeping, init, models, results, running
from mapnet_cli.cli.options import LOOKING, Command, Group, Invocation, command

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Variance-reduced language-model pretraining with a mask proposal network (MAP-Net), from raw text to Table 3."
    "\n\n"
    "All commands share one config and one artifact directory. Start with `mapnet run --recipe demo`, or, for text of "
    "your own, with `mapnet init FOLDER`.",
)
config_app = typer.Typer(cls=Group, no_args_is_help=True, help="Show the config, its keys, or its JSON schema.")
for group in (init.group, results.group, running.group, models.group, housekeeping.group):
    app.add_typer(group)
app.add_typer(config_app, name="config", rich_help_panel="Housekeeping")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mapnet {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
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


@config_app.command("keys", cls=Command)
def config_keys() -> None:
    """Print every key with its default and meaning, as Markdown (docs/config.md)."""
    from mapnet_cli.config import Config
    from mapnet_cli.config.reference import reference
    from mapnet_cli.masking import CHOICES

    typer.echo(reference(Config, CHOICES), nl=False)


@config_app.command("schema", cls=Command)
def config_schema() -> None:
    """Print the JSON schema of config files, with which editors complete and check them."""
    from mapnet_cli.config import Config
    from mapnet_cli.config.reference import json_schema
    from mapnet_cli.masking import CHOICES

    typer.echo(json.dumps(json_schema(Config, CHOICES), indent=1))


def main() -> None:
    """Runs the command line. On terminals that aren't UTF-8, other characters are replaced by similar ones."""
    from mapnet_cli.core import spell_out

    spell_out(sys.stdout, sys.stderr)
    app(prog_name="mapnet")
