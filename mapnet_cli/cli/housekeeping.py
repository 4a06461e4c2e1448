"""The commands about an artifact directory and the machine: what is there, what can go, what is damaged."""

import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from mapnet_cli.cli.options import LOOKING, Invocation, command

group = typer.Typer()


@command(group, "runs", LOOKING)
def runs(invocation: Invocation) -> None:
    """List everything in the artifact directory: which report shows it, age, size, state or scores."""
    from mapnet_cli.cli.inventory import age, inventory
    from mapnet_cli.core import UsageError, format_size, table_of, to_rich

    artifacts, found = invocation.artifacts, list(inventory(invocation.artifacts))
    if not found:
        raise UsageError(f"{artifacts.root} has no results: correct --artifacts, or use `mapnet run`")
    rows = [
        {
            "Result": row["result"], "Report": row["report"], "Age": age(row["made"]),
            "Size": format_size(row["bytes"]), "State": row["state"],
        }
        for row in found
    ]  # fmt: skip
    title = f"{artifacts.root}: {format_size(sum(row['bytes'] for row in found))}"
    invocation.console.result(found, to_rich(table_of("runs", title, rows, (), ""), notes=False))


@command(group, "clean", LOOKING)
def clean(
    invocation: Invocation,
    others: Annotated[list[Path] | None, typer.Argument(help="More config files, whose results stay, too.")] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Even if the config's own results aren't finished yet.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete what is listed.")] = False,
) -> None:
    """List results of other settings than the config's, which it doesn't use, and delete them with --yes."""
    from mapnet_cli.cli.stages import STAGES, superseded
    from mapnet_cli.config.loading import resolve
    from mapnet_cli.core import UsageError, format_size

    artifacts, console = invocation.artifacts, invocation.console
    if invocation.resolved.origins["recipe"] == "default":
        raise UsageError("say whose results to keep: mapnet clean --config FILE [FILE ...], or --recipe demo")
    with ExitStack() as locks:
        for stage in STAGES if yes else ():
            locks.enter_context(artifacts.lock(stage))
        configs = [invocation.config, *(resolve(None, file).config for file in others or ())]
        found = superseded(configs, artifacts, unfinished)
        for key in found if yes else ():
            artifacts.discard(key)
    groups = defaultdict[str, list[int]](list)  # a grid has thousands of records
    for key, size in found.items():
        groups["/".join(key.split("/")[:2])].append(size)
    lines = [f"{group}: {len(sizes):,} results, {format_size(sum(sizes))}" for group, sizes in groups.items()]
    what = f"{len(found):,} results of other settings, {format_size(sum(found.values()))}"
    done = (f"deleted {what}" if yes else f"{what}; nothing is deleted without --yes") if found else "nothing to delete"
    console.result({"deleted": yes, "bytes": found}, *lines, f"{artifacts.root}: {done}")


@command(group, "verify", LOOKING)
def verify(
    invocation: Invocation,
    heal_: Annotated[
        bool, typer.Option("--heal", help="Remove what is damaged, so that the next `mapnet run` makes it again.")
    ] = False,
) -> None:
    """Compare every file of the artifact directory with its checksum; exit code 4 if something is damaged."""
    from mapnet_cli.core import DamagedError, heal, verify

    found = verify(invocation.artifacts)
    if heal_:
        heal(found.damaged)
    lines = [f"{damage.path}: {damage.problem}; made again by mapnet {damage.command}" for damage in found.damaged]
    verified = f"{found.results:,} results and {found.files:,} files verified"
    invocation.console.result(found.to_json(), *lines, verified)
    if found.damaged and not heal_:
        raise DamagedError(
            f"{len(found.damaged)} damaged: `mapnet verify --heal` removes them, then `mapnet run` makes them again"
        )


@command(group, "doctor", LOOKING)
def doctor(invocation: Invocation) -> None:
    """Show versions, memory, disk, threads and GPUs, for bug reports."""
    import platform

    from mapnet_cli.core import free_disk, main_memory, visible_gpus
    from mapnet_cli.jobs import cores, library_versions

    total, available = main_memory()
    artifacts = invocation.artifacts.root.resolve()
    rows = {
        "platform": platform.platform(),
        "python": f"{platform.python_version()} at {sys.executable}",
        **{name: version for name, version in library_versions().items() if name != "python"},
        "cores": str(cores()),
        "memory": f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB available" if total else "unknown",
        "artifacts": f"{artifacts}, {free_disk(artifacts) / 1e9:.1f} GB free",
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
