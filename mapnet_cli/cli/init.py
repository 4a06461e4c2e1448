"""`mapnet init`: writes a config for a user's own text."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mapnet_cli.cli.options import Invocation, command

group = typer.Typer()
SCHEMA = ".mapnet.schema.json"
FEW_DOCUMENTS = 200  # number of text files up to which the share of held-out ones is raised
SHOWN = 5


@command(group, "init", ("json_",))
def init(
    invocation: Invocation,
    folder: Annotated[
        Path, typer.Argument(help="Folder with text, and perhaps GLUE tasks and minimal pairs.")
    ] = Path(),
    to: Annotated[
        Path | None, typer.Option("--to", help="The config file, which must not exist. Default: FOLDER.toml.")
    ] = None,
) -> None:
    """Write a commented config for the text in a folder, and its JSON schema for editors."""
    from mapnet_cli.cli.found import Found
    from mapnet_cli.config import Config
    from mapnet_cli.config.reference import json_schema
    from mapnet_cli.core import InputError, UsageError, format_size, render, write_json, write_text
    from mapnet_cli.masking import CHOICES

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: give the folder that has your text")
    config = to or Path(f"{folder.resolve().name or 'mine'}.toml")
    if config.exists():
        raise UsageError(f"{config} already exists: write another file with --to, or delete it")
    found = Found(invocation.config, config)
    found.look_into(folder)
    names = [path.relative_to(folder).as_posix() for path in found.unused]
    unused = f"{', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
    if not found.sources and not found.tasks:
        nothing = f"only {unused}" if unused else "it is empty"
        raise InputError(f"{folder} has no text files, JSONL, CSV, Parquet, Arrow, MediaWiki dumps or tasks: {nothing}")
    counts = [f"{len(part.files):,} file{'s' * (len(part.files) > 1)}" for part, _ in found.sources]
    sizes = [format_size(sum(file.stat().st_size for file in part.files)) for part, _ in found.sources]
    kinds = [f"{n} of kind {part.kind} in {part.path}" for n, (part, _) in zip(counts, found.sources, strict=True)]
    texts = sum(len(part.files) for part, _ in found.sources if part.kind == "text")
    few = texts <= FEW_DOCUMENTS and all(part.kind == "text" for part, _ in found.sources)
    text = render(
        "mapnet_cli.cli", "config.toml", schema=SCHEMA, name=config.name, counts=counts, sizes=sizes,
        sources=[{"kind": part.kind, "path": part.path.as_posix(), **settings} for part, settings in found.sources],
        validation_every=max(2, texts // 10) if few else 0, data=found.glue, tasks=found.tasks, subsets=found.subsets,
        pairs=[path.as_posix() for path in found.pairs], quoted=partial(json.dumps, ensure_ascii=False),
    )  # fmt: skip
    write_json(config.parent / SCHEMA, json_schema(Config, CHOICES))
    write_text(config, text)
    kinds += [f"tasks in {found.glue}: {', '.join(found.tasks)}"] if found.tasks else []
    kinds += [f"minimal pairs: {', '.join(map(str, found.pairs))}"] if found.pairs else []
    if unused:
        invocation.console.warn(f"not used: {unused}; archives must be unpacked")
    invocation.console.result(
        {"config": str(config), "found": kinds, "unused": names}, f"{config}: {'; '.join(kinds)}", "Next:",
        f"  mapnet run -c {config} --dry-run   # steps, hours, memory and disk, without running it",
        f"  mapnet run -c {config}             # from text to a report",
    )  # fmt: skip
