"""The commands of `mapnet`. They import their stages when called, which keeps --help fast."""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mapnet_cli import __version__
from mapnet_cli.cli.options import IMPORTING, LOOKING, MEASURING, RUNNING, RUNNING_HERE, TRAINING, Invocation, command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Variance-reduced language-model pretraining with a mask proposal network (MAP-Net), from raw text to Table 3."
    "\n\n"
    "All commands share one config and one artifact directory. Start with: mapnet run --recipe demo",
)
config_app = typer.Typer(no_args_is_help=True, help="Show the config and its keys.")
app.add_typer(config_app, name="config")


MethodOption = Annotated[str | None, typer.Option("--method", help="Method; required if the config has several.")]
RowOption = Annotated[
    str | None,
    typer.Option("--method", help='A method, an import or "untrained"; required if the config has several.'),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Pretraining seed. Default: the method's first one.")]
StepOption = Annotated[int | None, typer.Option("--step", help="Milestone step. Default: the last finished one.")]


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


def _run(names: Sequence[str], invocation: Invocation) -> None:
    """Runs the stages, or prints what would run if --dry-run is given."""
    from mapnet_cli.cli import stages

    lineage, console, workers = invocation.lineage, invocation.console, invocation.workers
    _advise(invocation)
    if not invocation.dry_run:
        stages.run_stages(names, lineage, console, workers, invocation.force, invocation.ray_address)
        if console.as_json and tuple(names) != tuple(stages.STAGES):  # `run` prints the report's JSON instead
            console.json([row for row, _ in stages.status(lineage)])
        return
    if not invocation.first:
        return
    rows = stages.dry_run(names, lineage, workers or 1)
    if console.as_json:
        console.json(rows)
        return
    for row in rows:
        done = f", {row['done']} already done" if row["done"] else ""
        console.data(f"{row['stage']:<15} {row['phase']:<14} {row['total'] - row['done']} {row['unit']}s to run{done}")
        for line in row.get("estimate", []):
            console.data(f"{'':<15} {'':<14} {line}")


def _advise(invocation: Invocation) -> None:
    """Warns if a machine with another automatic precision has left results that this one won't use."""
    from mapnet_cli.lineage import precision_advice

    if advice := precision_advice(invocation.config, invocation.artifacts):
        invocation.console.warn(advice)


@command(app, "prepare-corpus", RUNNING)
def prepare_corpus(invocation: Invocation) -> None:
    """Turn raw text into a vocabulary and token shards."""
    _run(["prepare-corpus"], invocation)


@command(app, "pretrain", TRAINING)
def pretrain(invocation: Invocation) -> None:
    """Pretrain an encoder with each method in the config on the prepared corpus."""
    _run(["pretrain"], invocation)


@command(app, "minimal-pairs", RUNNING)
def minimal_pairs(invocation: Invocation) -> None:
    """Score every checkpoint on minimal pairs of sentences (BLiMP, Zorro, your own), without fine-tuning."""
    from mapnet_cli.core import UsageError

    if not invocation.config.minimal_pairs.data:
        raise UsageError('minimal_pairs.data lists no data: set it, for example to ["blimp.tar.xz", "zorro.tar.xz"]')
    _run(["minimal-pairs"], invocation)


@command(app, "finetune-glue", RUNNING)
def finetune_glue(invocation: Invocation) -> None:
    """Fine-tune every checkpoint on the GLUE tasks, with every setting and seed."""
    _run(["finetune-glue"], invocation)


@command(app, "report", LOOKING)
def report(
    invocation: Invocation,
    folders: Annotated[
        list[Path] | None, typer.Argument(help="With --compare: artifact directories (or reports) to put side by side.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare the reports of several directories.")] = False,
    to: Annotated[Path, typer.Option(help="Folder of the comparison's page.")] = Path("comparison"),
    watch: Annotated[bool, typer.Option("--watch", help="Rebuild the page until no run is missing.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two builds with --watch.")] = 30,
) -> None:
    """Write the report of all finished runs: one HTML page, and tables and figures for papers."""
    import time

    from mapnet_cli.core import UsageError

    if compare:
        _compare(invocation, folders or [], to)
        return
    if folders:
        raise UsageError(f"{folders[0]}: folders are for --compare; the artifact directory is --artifacts {folders[0]}")
    _advise(invocation)
    while _report(invocation, math.ceil(every) if watch else 0) and watch:
        time.sleep(every)


def _report(invocation: Invocation, refresh: int = 0) -> str:
    """Writes and prints the report; returns the command that makes what is missing, "" if nothing is."""
    from mapnet_cli.core import to_rich
    from mapnet_cli.report.stage import build

    console, resolved, artifacts = invocation.console, invocation.resolved, invocation.artifacts
    own = artifacts.outputs == artifacts.root or not artifacts.recognised
    if not own:
        console.warn(f"{artifacts.root} can't be written to: the report's files go to {artifacts.outputs}")
    with artifacts.lock("report") if own else nullcontext():
        built = build(invocation.lineage, invocation.name, resolved.origins, refresh)
    if console.as_json:
        console.json({"folder": built.folder.name, "files": sorted(built.files), **built.value})
        return built.next_command
    console.data(to_rich(built.tables["table3"], notes=False))
    for line in built.summary:
        console.data(line)
    for warning in built.warnings:
        console.warn(warning)
    console.data(f"Report: {built.files['index.html']}")
    if built.next_command:
        console.data(f"Missing: {'; '.join(built.value['missing'])}")
        console.warn(f"the report is partial; next: {built.next_command}")
    return built.next_command


def _compare(invocation: Invocation, folders: Sequence[Path], to: Path) -> None:
    from mapnet_cli.core import to_json, to_rich
    from mapnet_cli.report.together import compare

    table, refused, page = compare(folders, to)
    if invocation.console.as_json:
        invocation.console.json({"page": str(page), "not compared": refused, "table": to_json(table)})
        return
    invocation.console.data(to_rich(table, notes=False))
    for reason in refused:
        invocation.console.warn(reason)
    invocation.console.data(f"Comparison: {page}")


@command(app, "run", TRAINING)
def run(invocation: Invocation) -> None:
    """Run prepare-corpus, pretrain, minimal-pairs, finetune-glue and report in order, skipping finished work."""
    from mapnet_cli.cli.stages import STAGES

    _run(tuple(STAGES), invocation)
    if not invocation.dry_run:
        _report(invocation)


@command(app, "status", LOOKING)
def status(
    invocation: Invocation,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until all work is done.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks with --watch.")] = 2,
) -> None:
    """Show what is done, running and missing."""
    from mapnet_cli.cli import watch as shown
    from mapnet_cli.cli.stages import status

    _advise(invocation)
    if watch and not invocation.console.as_json:
        shown.watch(invocation.console, lambda: invocation.lineage, every)
        return
    rows = status(invocation.lineage)
    if invocation.console.as_json:
        invocation.console.json([row for row, _ in rows])
        return
    for line in shown.status_lines(rows):
        invocation.console.data(line)


@command(app, "verify", LOOKING)
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
    if invocation.console.as_json:
        invocation.console.json(found.to_json())
    else:
        for damage in found.damaged:
            invocation.console.data(f"{damage.path}: {damage.problem}; made again by mapnet {damage.command}")
        invocation.console.data(f"{found.results:,} results and {found.files:,} files verified")
    if found.damaged and not heal_:
        raise DamagedError(
            f"{len(found.damaged)} damaged: `mapnet verify --heal` removes them, then `mapnet run` makes them again"
        )


@command(app, "export", LOOKING)
def export(
    invocation: Invocation,
    folder: Annotated[Path, typer.Argument(help="Output folder, new or empty.")],
    method: MethodOption = None,
    seed: SeedOption = None,
    step: StepOption = None,
    task: Annotated[
        str | None, typer.Option(help='Export the classifier of a task, kept with finetune.keep = "best".')
    ] = None,
) -> None:
    """Export a checkpoint as a Hugging Face folder: BertForMaskedLM or ElectraForPreTraining, tokenizer, model card."""
    from mapnet_cli.huggingface.classifier import export_classifier
    from mapnet_cli.huggingface.export import export_checkpoint

    chosen = invocation.lineage, folder, method, seed, step
    if task is not None:
        kept = export_classifier(*chosen, task)
        record, shown = kept.to_json(), f"{task}, {kept.run}"
    else:
        row = export_checkpoint(*chosen)
        record, shown = row.to_json(), f"{row.method}, seed {row.pretrain_seed}, step {row.step:,}"
    invocation.console.result(record, f"{folder}: {shown}")


@command(app, "predict-glue", RUNNING_HERE)
def predict_glue(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(help="Output zip file.")],
    method: RowOption = None,
    seed: SeedOption = None,
    step: StepOption = None,
) -> None:
    """Write an encoder's GLUE test-set predictions in the format of the GLUE server: eleven files in a zip."""
    from mapnet_cli.finetune_glue.submission import write_submission
    from mapnet_cli.lineage import find_row

    lineage, console = invocation.lineage, invocation.console
    place = find_row(lineage, method, seed, step)
    sources = write_submission(lineage, console, invocation.workers or 0, invocation.force, place, file)
    lines = (f"{name + '.tsv':<12} {source}" for name, source in sources.items())
    console.result(sources, *lines, f"Submission: {file}")


@command(app, "import-hf", IMPORTING)
def import_hf(
    invocation: Invocation,
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of a BERT, RoBERTa or ModernBERT written by save_pretrained, with its tokenizer."),
    ],
    name: Annotated[str | None, typer.Option(help="Name to use in configs. Default: the folder's name.")] = None,
) -> None:
    """Import a BERT, RoBERTa or ModernBERT from Hugging Face, to fine-tune it or to continue pretraining from it."""
    from mapnet_cli.huggingface.import_encoder import import_folder

    row, warnings = import_folder(invocation.artifacts, folder, name)
    for warning in warnings:
        invocation.console.warn(warning)
    shown = f"{row.path}: {row.encoder['layers']} layers, vocabulary {row.vocab_size:,}"
    invocation.console.result(row.to_json(), shown)


@command(app, "variance", MEASURING)
def variance(
    invocation: Invocation,
    checkpoint: Annotated[
        str | None, typer.Option(help="Method whose checkpoint is measured; required if the config has several.")
    ] = None,
    seed: SeedOption = None,
    step: StepOption = None,
    strategies: Annotated[
        str,
        typer.Option(metavar="NAME,NAME", help="Methods of the config, strategies, oracle-loss or oracle-gradient."),
    ] = "uniform,spaced,disjoint",
    sentences: Annotated[int, typer.Option(help="Number of held-out sentences.")] = 64,
    masks: Annotated[int, typer.Option(help="Masks per sentence and strategy; a multiple of --visits.")] = 24,
    visits: Annotated[int, typer.Option(help="Successive visits of a sentence to average over.")] = 6,
) -> None:
    """Compare the sentence and mask variance of the gradient (Theorem 1) across strategies, at a checkpoint."""
    from mapnet_cli.core import to_rich
    from mapnet_cli.lineage import find_milestone
    from mapnet_cli.variance.stage import Settings, measure_variance
    from mapnet_cli.variance.table import variance_tables

    lineage, console = invocation.lineage, invocation.console
    names, settings = [name.strip() for name in strategies.split(",")], Settings(sentences, masks, visits)
    milestone = find_milestone(lineage, checkpoint, seed, step, "--checkpoint")
    with invocation.artifacts.lock("variance"):
        result, folder = measure_variance(lineage, console, names, milestone, settings, invocation.force)
    tables = (to_rich(table, notes=False) for table in variance_tables(result))
    console.result(result.to_json(), *tables, f"Measurement: {folder / 'variance.md'}")


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


@command(app, "doctor", LOOKING)
def doctor(invocation: Invocation) -> None:
    """Show versions, memory, disk, threads and GPUs, for bug reports."""
    from mapnet_cli.cli.doctor import facts

    rows = facts(invocation.artifacts.root)
    invocation.console.result(rows, "\n".join(f"{name:<16} {value}" for name, value in rows.items()))


def main() -> None:
    """Runs the command line. On terminals that aren't UTF-8, other characters are replaced by similar ones."""
    from mapnet_cli.core import spell_out

    spell_out(sys.stdout, sys.stderr)
    app(prog_name="mapnet")
