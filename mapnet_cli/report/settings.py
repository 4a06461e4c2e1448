"""The tables of settings, from the resolved config: Table 1, Table 2, and what each method is."""

from collections.abc import Iterable

from mapnet_cli.config import Config
from mapnet_cli.core.tables import Cell, Table, plain
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import PROBE, is_probe, label
from mapnet_cli.report.scores import Scores

PAPER_TABLE_1 = ("256", "512", "1,000,000", "1e-4", "1e-6", "(0.9, 0.98)", "10,000", "Linear", "0.1", "0.01")
PAPER_TABLE_2 = ("{16, 32}", "10", "{1e-5, ..., 8e-5}", "0.06", "0.1", "10")


def settings_tables(results: Results, scores: Scores) -> tuple[Table, Table, Table]:
    """Returns Table 1, Table 2 and the methods."""
    signed = signature(results, scores.metrics)
    notes = (f"The config fine-tunes on {PROBE}.",) if is_probe(results.config) else ()
    return (
        _beside_paper("table1", "Table 1: hyperparameters of pretraining", table1(results.config), notes, signed),
        _beside_paper("table2", "Table 2: search space of fine-tuning", table2(results.config), notes, signed),
        methods_table(results.config, notes, signed),
    )


def table1(config: Config) -> list[tuple[str, str, str]]:
    """Returns (hyperparameter, this config's value, the paper's), in the paper's order."""
    pretrain = config.pretrain
    own = [f"{label(name)} {steps:,}" for name in config.methods if (steps := config.method[name].steps)]
    ours = {
        "Batch size": f"{pretrain.batch_size:,}",
        "Sequence length": f"{config.corpus.block_length:,}",
        "Training steps": "; ".join([f"{pretrain.steps:,}", *own]),
        "Peak learning rate": number(pretrain.peak_lr),
        "Adam eps": number(pretrain.adam_eps),
        "Adam betas": "({:g}, {:g})".format(*pretrain.adam_betas),
        "Warm-up steps": f"{pretrain.warmup_steps:,}",
        "Learning rate decay": "Linear",
        "Dropout": number(config.encoder.dropout),
        "Weight decay": number(pretrain.weight_decay),
    }
    paper = PAPER_TABLE_1
    encoder = (
        f"{config.encoder.layers} layers, H {config.encoder.hidden}, A {config.encoder.heads}, FFN {config.encoder.ffn}"
    )
    imported = config.corpus.tokenizer
    vocabulary = f"{imported}'s, imported" if imported else f"{config.corpus.vocab_size:,}"
    return [(name, value, theirs) for (name, value), theirs in zip(ours.items(), paper, strict=True)] + [
        ("Encoder (section 4.1)", encoder, "12 layers, H 768, A 12, FFN 3072"),
        ("Vocabulary (section 4.1.1)", vocabulary, "32,678"),
    ]


def table2(config: Config) -> list[tuple[str, str, str]]:
    """Returns (hyperparameter, this config's value, the paper's), in the paper's order, and the number of seeds."""
    finetune = config.finetune
    ours = {
        "Batch size": _set(map(str, finetune.batch_sizes)),
        "Maximum epoch": str(finetune.epochs),
        "Learning rate": _set(map(number, finetune.learning_rates)),
        "Warm-up ratio": number(finetune.warmup_ratio),
        "Weight decay": number(finetune.weight_decay),
        "Seeds of a setting (section 4.1.2)": str(len(finetune.seeds)),
    }
    return [(name, value, theirs) for (name, value), theirs in zip(ours.items(), PAPER_TABLE_2, strict=True)]


def methods_table(config: Config, notes: tuple[str, ...], signed: str) -> Table:
    """What is compared: masking and objective of each method."""
    rows = []
    for name in config.methods:
        method = config.method[name]
        learned = method.has_network
        generator = f", generator {method.generator_fraction:g}, weight {number(method.detection_weight)}"
        values = [
            method.task + (generator if method.task == "replaced-token" else ""),
            method.strategy if method.sampler == "gumbel" else f"{method.strategy}, {method.sampler}",
            number(method.mask_rate) + (f" to {number(method.mask_rate_end)}" if method.mask_rate_end else ""),
            method.estimator,
            method.objective,
            f"{number(method.loss_weight)} on {method.loss_weight_on}" if learned else None,
            f"{method.explore_start:.0%} to {method.explore_end:.0%}" if method.draws_from_proposal else None,
            f"{config.of(name).pretrain.steps:,}",
            "+".join(map(str, config.seeds_of(name))),
        ]
        rows.append((Cell(label(name), name), *map(plain, values)))
    columns = (
        "Model", "Task", "Masks", "Mask rate", "Importance weight", "MAP-Net objective", "Lambda", "Uniform steps",
        "Steps", "Seeds",
    )  # fmt: skip
    return Table("methods", "What is compared", columns, tuple(rows), notes, signed)


def number(value: float) -> str:
    """Returns 1e-05 as "1e-5", as the paper writes it, from 0.01 upwards as a decimal."""
    if value == 0 or value >= 0.001:
        return f"{value:g}"
    digits, _, exponent = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(values) + "}"


def _beside_paper(
    name: str, title: str, settings: list[tuple[str, str, str]], notes: tuple[str, ...], signed: str
) -> Table:
    rows = tuple(tuple(map(plain, row)) for row in settings)
    return Table(name, title, ("Hyperparameter", "This config", "The paper"), rows, notes, signed)
