"""The options that commands share, and what turns a function into a command with them."""

import functools
import inspect
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mapnet_cli.config import Config
from mapnet_cli.config.loading import Resolved, resolve
from mapnet_cli.core import (
    Artifacts,
    Console,
    DivergedError,
    Interrupted,
    LockedError,
    MapnetError,
    ProcessError,
    UsageError,
)
from mapnet_cli.jobs import ALONE, cores, launched
from mapnet_cli.lineage import Lineage

CONFIG_PANEL, RUN_PANEL, OUTPUT_PANEL = "What to do", "How to run it", "What to show"
_what = functools.partial(typer.Option, rich_help_panel=CONFIG_PANEL)
_how = functools.partial(typer.Option, rich_help_panel=RUN_PANEL)
_shown = functools.partial(typer.Option, rich_help_panel=OUTPUT_PANEL)
RecipeOption = Annotated[
    str | None, _what("--recipe", help="demo, small or paper. Default: the file's; demo without a file.")
]
FileOption = Annotated[Path | None, _what("--config", help="A TOML file with your settings.")]
SetOption = Annotated[
    list[str] | None, _what("--set", metavar="SECTION.KEY=VALUE", help="One setting; may be repeated.")
]
ArtifactsOption = Annotated[Path, _what("--artifacts", help="The artifact directory.")]
WorkersOption = Annotated[
    int | None, _how("--workers", min=0, help="Jobs side by side; 0: all in this process. Default: as many as fit.")
]
ProcessesOption = Annotated[
    int | None, _how("--processes", min=1, help="Processes that train one model together (torchrun), one a GPU.")
]
EngineOption = Annotated[
    Literal["local", "ray"], _how("--engine", help="Where jobs run: on this machine, or on a Ray cluster.")
]
RayAddressOption = Annotated[
    str, _how("--ray-address", metavar="HOST:PORT", help="The cluster of --engine ray; auto: the one `ray start` made.")
]
DryRunOption = Annotated[bool, _how("--dry-run", help="Say what would run, and run nothing.")]
ForceOption = Annotated[bool, _how("--force", help="Run it again even where it is done.")]
QuietOption = Annotated[bool, _shown("--quiet", "-q", help="Only warnings and errors.")]
JsonOption = Annotated[bool, _shown("--json", help="One JSON value on stdout.")]

UNIVERSAL = (UsageError, LockedError, DivergedError, Interrupted)
"""Errors that all of several launched processes raise alike, but for a ProcessError: the first one says them."""


@dataclass(frozen=True)
class Invocation:
    """What the shared options say."""

    resolved: Resolved
    artifacts: Artifacts
    workers: int | None
    """Jobs side by side; None: as many as a Ray cluster has room for."""
    ray_address: str | None
    """None: jobs run on this machine."""
    dry_run: bool
    force: bool
    console: Console
    first: bool
    """Not one of several launched processes, or the one that speaks for them."""

    @property
    def config(self) -> Config:
        return self.resolved.config

    @cached_property
    def lineage(self) -> Lineage:
        return Lineage(self.config, self.artifacts)


def shared_options(
    recipe: RecipeOption = None,
    config: FileOption = None,
    set_: SetOption = None,
    artifacts: ArtifactsOption = Path("artifacts"),
    workers: WorkersOption = None,
    processes: ProcessesOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = "auto",
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> Invocation:
    first = (launched() or ALONE).rank == 0
    console = Console(quiet=quiet or not first, as_json=json_ and first)
    settings = [*(set_ or ()), *([] if processes is None else [f"pretrain.processes={processes}"])]
    resolved = resolve(recipe, config, settings)
    if engine == "ray" and workers == 0:
        raise UsageError("--workers 0 runs everything in this process: leave it out, or --engine ray")
    if engine == "local" and ray_address != "auto":
        raise UsageError("--ray-address goes with --engine ray")
    if engine == "local" and workers is None:
        workers = cores()
    address = ray_address if engine == "ray" else None
    return Invocation(resolved, Artifacts(artifacts), workers, address, dry_run, force, console, first)


Command = Callable[..., None]
_HOW = ("engine", "ray_address", "dry_run", "force", "quiet", "json_")
RUNNING = ("recipe", "config", "set_", "artifacts", "workers", *_HOW)
TRAINING = ("recipe", "config", "set_", "artifacts", "workers", "processes", *_HOW)
RUNNING_HERE = ("recipe", "config", "set_", "artifacts", "workers", "force", "quiet", "json_")
LOOKING = ("recipe", "config", "set_", "artifacts", "json_")
MEASURING = ("recipe", "config", "set_", "artifacts", "force", "quiet", "json_")
IMPORTING = ("artifacts", "json_")


def command(group: typer.Typer, name: str, options: tuple[str, ...]) -> Callable[[Command], Command]:
    """Registers a function as a command with these shared options and mapnet's exit codes.

    Its first parameter is the Invocation; those after it are the command's own arguments and options.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            first = True
            try:
                signal.signal(signal.SIGTERM, _as_keyboard_interrupt)
                first = (launched() or ALONE).rank == 0
                shared = {option: values.pop(option) for option in options}
                function(shared_options(**shared), **values)
            except UNIVERSAL as error:
                _fail(str(error) if first or isinstance(error, ProcessError) else "", error.exit_code)
            except MapnetError as error:
                _fail(str(error), error.exit_code)
            except KeyboardInterrupt:
                _fail("interrupted; the same command goes on where it stopped", Interrupted.exit_code)
            except OSError as error:  # full disk, read-only folder
                _fail(str(error), MapnetError.exit_code)

        every = inspect.signature(shared_options).parameters
        _, *own = inspect.signature(function).parameters.values()
        parameters = [*own, *(every[option] for option in options)]
        # typer builds the options from the signature, which inspect reads here (PEP 362)
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name)(run)
        return function

    return register


def _as_keyboard_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _fail(message: str, exit_code: int) -> None:
    if message:
        Console().error(message)
    raise typer.Exit(exit_code)
