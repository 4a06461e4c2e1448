"""The commands that run one stage each. They import their stages when called, which keeps --help fast."""

import glob
import shlex
from collections.abc import Sequence
from pathlib import Path

import typer

from mapnet_cli.cli.options import RUNNING, TRAINING, Invocation, command

group = typer.Typer()
NEXT = {"prepare-corpus": "pretrain", "pretrain": "finetune-glue"}


def run_or_plan(names: Sequence[str], invocation: Invocation) -> None:
    """Runs the stages, or prints what would run if --dry-run is given."""
    from mapnet_cli.cli import stages
    from mapnet_cli.cli.reasons import reasons

    lineage, console, workers = invocation.lineage, invocation.console, invocation.workers
    import_base(invocation)
    name = invocation.name or lineage.config.recipe or "custom"
    advise(invocation)
    if not invocation.dry_run:
        stages.run_stages(names, lineage, console, workers, invocation.force, invocation.ray_address, name)
        if len(names) == 1 and invocation.first:
            next_one = NEXT.get(names[0], "report")
            if next_one == "finetune-glue" and not lineage.config.finetune.tasks:
                next_one = "minimal-pairs" if lineage.config.minimal_pairs.data else "report"
            console.note(f"Done: {lineage.artifacts.path(names[0])}; next, with the same options: mapnet {next_one}")
        if console.as_json and tuple(names) != tuple(stages.STAGES):  # `run` prints the report's JSON instead
            console.json([row for row, _ in stages.status(lineage)])
        return
    if not invocation.first:
        return
    rows, lines = stages.dry_run(names, lineage, workers or 1), list[str]()
    todo = dict.fromkeys(row["stage"] for row in rows if row["done"] < row["total"])
    for reason in reasons(lineage, name, todo):
        console.note(reason)
    for row in rows:
        done = f", {row['done']} already done" if row["done"] else ""
        lines.append(f"{row['stage']:<15} {row['phase']:<14} {row['total'] - row['done']} {row['unit']}s to run{done}")
        lines += [f"{'':<15} {'':<14} {line}" for line in row.get("estimate", [])]
    console.result(rows, *lines)


def import_base(invocation: Invocation) -> None:
    """Imports the folder `base`, unless it has been imported since it was written. Raises UsageError in a dry run."""
    from mapnet_cli.config.loading import base_name
    from mapnet_cli.core import UsageError
    from mapnet_cli.jobs import launched

    if not (base := invocation.config.base) or launched():
        return
    name, root = base_name(base), invocation.artifacts.root
    markers = [*invocation.artifacts.path("import").glob(f"{glob.escape(name)}-????????.json")]
    if invocation.dry_run:
        if not markers:
            command = shlex.join(["mapnet", "import-hf", base, "--name", name, "--artifacts", str(root)])
            raise UsageError(
                f"base: a dry run imports nothing, but the plan depends on the model: first run `{command}`"
            )
        return
    # copies and moves may keep the time of the last change of the contents, but not that of the attributes
    written = max(path.stat().st_ctime for path in (Path(base), *Path(base).iterdir()))
    if all(marker.stat().st_mtime < written for marker in markers):
        from mapnet_cli.huggingface.import_encoder import import_folder

        row, warnings = import_folder(invocation.artifacts, Path(base), name)
        invocation.console.note(f"{row.path} imported from {base}")
        for warning in warnings:
            invocation.console.warn(warning)


def advise(invocation: Invocation) -> None:
    """Warns of settings without effect, and of another machine's results that this one's precision won't use."""
    from mapnet_cli.lineage import precision_advice

    for warning in invocation.resolved.warnings if invocation.first else ():
        invocation.console.warn(warning)
    if advice := precision_advice(invocation.config, invocation.artifacts):
        invocation.console.warn(advice)


@command(group, "prepare-corpus", RUNNING)
def prepare_corpus(invocation: Invocation) -> None:
    """Turn raw text into a vocabulary and token shards."""
    run_or_plan(["prepare-corpus"], invocation)


@command(group, "pretrain", TRAINING)
def pretrain(invocation: Invocation) -> None:
    """Pretrain an encoder with each method in the config on the prepared corpus."""
    run_or_plan(["pretrain"], invocation)


@command(group, "minimal-pairs", RUNNING)
def minimal_pairs(invocation: Invocation) -> None:
    """Score every checkpoint on minimal pairs of sentences (BLiMP, Zorro, your own), without fine-tuning."""
    from mapnet_cli.core import UsageError

    if not invocation.config.minimal_pairs.data:
        raise UsageError('minimal_pairs.data lists no data: set it, for example to ["blimp.tar.xz", "zorro.tar.xz"]')
    run_or_plan(["minimal-pairs"], invocation)


@command(group, "finetune-glue", RUNNING)
def finetune_glue(invocation: Invocation) -> None:
    """Fine-tune every checkpoint on the GLUE tasks, with every setting and seed."""
    from mapnet_cli.core import UsageError

    if not invocation.config.finetune.tasks:
        raise UsageError('finetune.tasks lists no tasks: set it, for example to ["CoLA", "SST-2"]')
    run_or_plan(["finetune-glue"], invocation)
