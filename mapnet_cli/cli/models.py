"""The commands about single encoders: export, import, predictions for GLUE's server, gradient variance."""

from pathlib import Path
from typing import Annotated

import typer

from mapnet_cli.cli.options import IMPORTING, LOOKING, MEASURING, RUNNING_HERE, Invocation, command

group = typer.Typer()
MethodOption = Annotated[str | None, typer.Option("--method", help="Method; required if the config has several.")]
RowOption = Annotated[
    str | None, typer.Option("--method", help='A method, an import or "untrained"; required if the config has several.')
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Pretraining seed. Default: the method's first one.")]
StepOption = Annotated[int | None, typer.Option("--step", help="Milestone step. Default: the last finished one.")]


@command(group, "export", LOOKING)
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
    """Export a checkpoint as a Hugging Face folder: a BERT, ModernBERT or ELECTRA, tokenizer, model card."""
    from mapnet_cli.huggingface.export import export_checkpoint, export_classifier

    chosen = invocation.lineage, folder, method, seed, step
    if task is not None:
        kept = export_classifier(*chosen, task)
        record, shown = kept.to_json(), f"{task}, {kept.run}"
    else:
        row = export_checkpoint(*chosen)
        record, shown = row.to_json(), f"{row.method}, seed {row.pretrain_seed}, step {row.step:,}"
    invocation.console.result(record, f"{folder}: {shown}")
    invocation.console.note(f"To publish it, with a licence of your choice: hf upload OWNER/{folder.name} {folder}")


@command(group, "predict-glue", RUNNING_HERE)
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


@command(group, "import-hf", IMPORTING)
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


@command(group, "variance", MEASURING)
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
