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

if TYPE_CHECKING:
    from mapnet_cli.config import Config
    from mapnet_cli.config.loading import Resolved
    from mapnet_cli.core import Artifacts, Console
    from mapnet_cli.lineage import Lineage

CONFIG_PANEL, RUN_PANEL, OUTPUT_PANEL = "Configuration", "Execution", "Output"
_config = functools.partial(typer.Option, rich_help_panel=CONFIG_PANEL)
_run = functools.partial(typer.Option, rich_help_panel=RUN_PANEL)
_output = functools.partial(typer.Option, rich_help_panel=OUTPUT_PANEL)
Command = Callable[..., None]
_EXECUTION = ("engine", "ray_address", "dry_run", "force", "quiet", "json_")
RUNNING = ("recipe", "config", "set_", "artifacts", "workers", *_EXECUTION)
TRAINING = ("recipe", "config", "set_", "artifacts", "workers", "processes", *_EXECUTION)
RUNNING_HERE = ("recipe", "config", "set_", "artifacts", "workers", "force", "quiet", "json_")
LOOKING = ("recipe", "config", "set_", "artifacts", "json_")
MEASURING = ("recipe", "config", "set_", "artifacts", "force", "quiet", "json_")
IMPORTING = ("artifacts", "json_")


@dataclass(frozen=True)
class Invocation:
    """The parsed shared options."""

    resolved: "Resolved"
    artifacts: "Artifacts"
    workers: int | None
    """Number of parallel jobs; None: as many as the Ray cluster has room for."""
    ray_address: str | None
    """Address of the Ray cluster; None: jobs run on this machine."""
    dry_run: bool
    force: bool
    console: "Console"
    first: bool
    """Whether this process prints: the first of several launched processes, or the only one."""
    name: str = ""
    """The config file's name without suffix; "" without one."""

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
    config: Annotated[Path | None, _config("--config", help="A TOML file with your settings.")] = None,
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
    json_: Annotated[bool, _output("--json", help="Print one JSON value to stdout.")] = False,
    looking: bool = False,
) -> Invocation:
    from mapnet_cli.config.loading import resolve
    from mapnet_cli.core import Artifacts, Console, UsageError
    from mapnet_cli.jobs import ALONE, cores, launched

    first = (launched() or ALONE).rank == 0
    console = Console(quiet=quiet or not first, as_json=json_ and first)
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


def command(group: typer.Typer, name: str, options: tuple[str, ...]) -> Callable[[Command], Command]:
    """Registers a function of an Invocation as a command with shared options, its own ones and mapnet's exit codes."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            from mapnet_cli import core
            from mapnet_cli.jobs import ALONE, launched

            first, shared = True, {option: values.pop(option) for option in options}
            try:
                for number in (signal.SIGTERM, signal.SIGHUP):
                    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                        signal.signal(number, _as_keyboard_interrupt)
                first = (launched() or ALONE).rank == 0
                function(shared_options(**shared, looking=options in (LOOKING, MEASURING, RUNNING_HERE)), **values)
            except (core.UsageError, core.LockedError, core.DivergedError, core.Interrupted) as error:
                # every launched process raises these, except for ProcessError; only the first one reports them
                _fail(str(error) if first or isinstance(error, core.ProcessError) else "", error.exit_code)
            except core.MapnetError as error:
                _fail(str(error), error.exit_code)
            except KeyboardInterrupt:
                _fail("interrupted; run the same command again to resume", core.Interrupted.exit_code)
            except BrokenPipeError:  # `mapnet status | head`: click ends quietly
                raise
            except OSError as error:
                failure = core.system_error(error, shared.get("artifacts"))
                _fail(str(failure), failure.exit_code)
            except (MemoryError, RuntimeError) as error:
                if not core.out_of_memory(error):
                    raise
                _fail(f"out of memory: {core.memory_advice(name)}", core.MapnetError.exit_code)

        available = inspect.signature(shared_options).parameters
        _, *own = inspect.signature(function).parameters.values()
        parameters = [*own, *(available[option] for option in options)]
        # typer builds the options from the signature, which inspect reads from this attribute (PEP 362)
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name)(run)
        return function

    return register


def _as_keyboard_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _fail(message: str, exit_code: int) -> None:
    if message:
        from mapnet_cli.core import Console

        Console().error(message)
    raise typer.Exit(exit_code)
