"""Options shared by the commands, and the decorator that registers a function as a command.

The rest of the package is imported when a command runs, which keeps --help fast.
"""

import functools
import inspect
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from mapnet_cli.config import Config
    from mapnet_cli.config.loading import Resolved
    from mapnet_cli.core import Artifacts, Console
    from mapnet_cli.lineage import Lineage

CONFIG_PANEL, RUN_PANEL, OUTPUT_PANEL = "Configuration", "Execution", "Output"
_config = functools.partial(typer.Option, rich_help_panel=CONFIG_PANEL)
_run = functools.partial(typer.Option, rich_help_panel=RUN_PANEL)
_output = functools.partial(typer.Option, rich_help_panel=OUTPUT_PANEL)
Function = Callable[..., None]
_SHOWN = ("quiet", "verbose", "log_file", "json_")
_EXECUTION = ("engine", "ray_address", "dry_run", "force", *_SHOWN)
RUNNING = ("recipe", "config", "set_", "artifacts", "workers", *_EXECUTION)
TRAINING = ("recipe", "config", "set_", "artifacts", "workers", "processes", *_EXECUTION)
RUNNING_HERE = ("recipe", "config", "set_", "artifacts", "workers", "force", *_SHOWN)
LOOKING = ("recipe", "config", "set_", "artifacts", "json_")
MEASURING = ("recipe", "config", "set_", "artifacts", "force", *_SHOWN)
IMPORTING = ("artifacts", "json_")
PANELS = {
    "First steps": ("init", "run", "status", "report"),
    "Single stages": ("prepare-corpus", "pretrain", "minimal-pairs", "finetune-glue"),
    "Encoders": ("export", "import-hf", "predict-glue", "variance"),
    "Housekeeping": ("runs", "clean", "verify", "config", "doctor"),
}
"""Headings of `mapnet --help` with their commands, in the order in which a user meets them."""


def _plain_flags(parameters: list[Any]) -> list[Any]:
    """Returns the parameters such that help shows no type ("<bool>") behind flags."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain_flags(super().get_params(ctx))


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain_flags(super().get_params(ctx))


@dataclass(frozen=True)
class Invocation:
    """The parsed shared options."""

    resolved: "Resolved"
    artifacts: "Artifacts"
    workers: int | None  # number of parallel jobs; None: as many as the Ray cluster has room for
    ray_address: str | None  # address of the Ray cluster; None: jobs run on this machine
    dry_run: bool
    force: bool
    console: "Console"
    first: bool  # whether this process prints: the first of several launched processes, or the only one
    name: str = ""  # the config file's name without suffix; "" without one

    @property
    def config(self) -> "Config":
        return self.resolved.config

    @property
    def lineage(self) -> "Lineage":
        """A new one each time: it keeps the hashes of input files, which may change while a command runs."""
        from mapnet_cli.lineage import Lineage

        return Lineage(self.config, self.artifacts)


def shared_options(
    recipe: Annotated[
        str | None,
        _config("--recipe", help="demo, small, paper or continue. Default: the config file's; without one, demo."),
    ] = None,
    config: Annotated[Path | None, _config("--config", "-c", help="A TOML file with your settings.")] = None,
    set_: Annotated[
        list[str] | None, _config("--set", metavar="SECTION.KEY=VALUE", help="Set a config key; repeatable.")
    ] = None,
    artifacts: Annotated[Path, _config("--artifacts", help="The artifact directory.")] = Path("artifacts"),
    workers: Annotated[
        int | None,
        _run("--workers", min=0, help="Number of parallel jobs; 0: in this process. Default: as many as fit."),
    ] = None,
    processes: Annotated[
        int | None, _run("--processes", min=1, help="Processes that train one model together (torchrun), one per GPU.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], _run("--engine", help="Where jobs run: this machine or a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str, _run("--ray-address", metavar="HOST:PORT", help="The Ray cluster; auto: the one started by `ray start`.")
    ] = "auto",
    dry_run: Annotated[bool, _run("--dry-run", help="Print what would run, without running it.")] = False,
    force: Annotated[bool, _run("--force", help="Rerun work that is already done.")] = False,
    quiet: Annotated[bool, _output("--quiet", "-q", help="Show only warnings and errors.")] = False,
    verbose: Annotated[
        bool, _output("--verbose", "-v", help="Show every finished job and every progress line.")
    ] = False,
    log_file: Annotated[
        Path | None, _output("--log-file", help="Also append messages and progress to a file, with times.")
    ] = None,
    json_: Annotated[bool, _output("--json", help="Print one JSON value to stdout.")] = False,
    looking: bool = False,
) -> Invocation:
    from mapnet_cli.config.loading import resolve
    from mapnet_cli.core import Artifacts, Console, UsageError
    from mapnet_cli.jobs import ALONE, cores, launched

    first = (launched() or ALONE).rank == 0
    if log_file and first:
        log_file.open("a").close()  # an error now rather than a log that is missing later
    console = Console(quiet or not first, json_ and first, verbose, log_file if first else None)
    settings = [*(set_ or ()), *([] if processes is None else [f"pretrain.processes={processes}"])]
    resolved = resolve(recipe, config, settings)
    if engine == "ray" and workers == 0:
        raise UsageError("--workers 0 runs everything in this process: omit it, or omit --engine ray")
    if engine == "local" and ray_address != "auto":
        raise UsageError("--ray-address requires --engine ray")
    if engine == "local" and workers is None:
        workers = cores()
    address, root = ray_address if engine == "ray" else None, Artifacts(artifacts, dry_run or looking)
    for number, source in enumerate(resolved.config.corpus.sources):
        if source.path and not source.from_hub:
            root.refuse_text(f"corpus.sources.{number}.path", Path(source.path))
    return Invocation(resolved, root, workers, address, dry_run, force, console, first, config.stem if config else "")


def command(group: typer.Typer, name: str, options: tuple[str, ...]) -> Callable[[Function], Function]:
    """Registers a function of an Invocation as a command with shared options, its own ones and mapnet's exit codes."""

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            from mapnet_cli import core
            from mapnet_cli.jobs import ALONE, launched

            first, shared = True, {option: values.pop(option) for option in options}
            fail = functools.partial(_fail, log_file=shared.get("log_file"))
            try:
                for number in (signal.SIGTERM, signal.SIGHUP):
                    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                        signal.signal(number, _as_keyboard_interrupt)
                first = (launched() or ALONE).rank == 0
                function(shared_options(**shared, looking=options in (LOOKING, MEASURING, RUNNING_HERE)), **values)
            except (core.UsageError, core.LockedError, core.DivergedError, core.Interrupted) as error:
                # every launched process raises these, except for ProcessError; only the first one reports them
                fail(str(error) if first or isinstance(error, core.ProcessError) else "", error.exit_code)
            except core.MapnetError as error:
                fail(str(error), error.exit_code)
            except KeyboardInterrupt:
                fail("interrupted; run the same command again to resume", core.Interrupted.exit_code)
            except BrokenPipeError:  # `mapnet status | head`: click ends quietly
                raise
            except OSError as error:
                failure = core.system_error(error, shared.get("artifacts"))
                fail(str(failure), failure.exit_code)
            except (MemoryError, RuntimeError) as error:
                if not core.out_of_memory(error):
                    raise
                fail(f"out of memory: {core.memory_advice(name)}", core.MapnetError.exit_code)

        available = inspect.signature(shared_options).parameters
        _, *own = inspect.signature(function).parameters.values()
        parameters = [*own, *(available[option] for option in options)]
        # typer builds the options from the signature, which inspect reads from this attribute (PEP 362)
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        panel = next((panel for panel, names in PANELS.items() if name in names), None)
        group.command(name, cls=Command, rich_help_panel=panel)(run)
        return function

    return register


def _as_keyboard_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _fail(message: str, exit_code: int, log_file: Path | None) -> None:
    if message:
        from mapnet_cli.core import Console

        Console(log_file=log_file).error(message)
    raise typer.Exit(exit_code)
