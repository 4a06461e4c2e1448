"""Tables of settings from the resolved config: Table 1, Table 2 and the methods."""

from collections.abc import Iterable
from dataclasses import dataclass

from mapnet_cli.config import Config, Method
from mapnet_cli.core import Column, Table, build_table, each
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import OWN_KEYS, PROBE, is_probe, label, model_cell, number, own_values
from mapnet_cli.report.scores import Scores


@dataclass(frozen=True)
class _Setting:
    """A hyperparameter with this config's value and the paper's."""

    name: str
    ours: str
    paper: str


SETTING_COLUMNS: list[Column[_Setting]] = [
    Column("Hyperparameter", lambda row: row.name),
    Column("This config", lambda row: row.ours),
    Column("Paper", lambda row: row.paper),
]


DECAY = {"linear": "Linear", "wsd": "None, then linear over the last tenth of each milestone's steps"}
"""By pretrain.schedule."""


def settings_tables(results: Results, scores: Scores) -> tuple[Table, Table, Table]:
    """Returns Table 1, Table 2 and the table of methods."""
    config, signed = results.config, signature(results, scores.metrics)
    notes = (f"The config fine-tunes on {PROBE}.",) if is_probe(config) else ()
    pretraining, tuning = "Table 1: pretraining hyperparameters", "Table 2: fine-tuning search space"
    return (
        build_table("table1", pretraining, SETTING_COLUMNS, _table1(config), notes, signed),
        build_table("table2", tuning, SETTING_COLUMNS, _table2(config), notes, signed),
        build_table("methods", "Methods", _method_columns(config), config.methods, notes, signed),
    )


def _table1(config: Config) -> list[_Setting]:
    """Returns the hyperparameters in the paper's order, and the encoder and vocabulary sizes."""
    pretrain, encoder = config.pretrain, config.encoder
    rates = [
        f"{label(name)} {number(mapnet.peak_lr)} for its proposal"
        for name in config.methods
        if (mapnet := config.method[name].mapnet) and mapnet.peak_lr
    ]
    sizes = f"{encoder.layers} layers, H {encoder.hidden}, A {encoder.heads}, FFN {encoder.ffn}"
    imported = config.corpus.tokenizer
    vocabulary = f"of the import {imported}" if imported else f"{config.corpus.vocab_size:,}"
    return [
        _Setting("Batch size", _by_method(config, "batch_size"), "256"),
        _Setting("Sequence length", f"{config.corpus.block_length:,}", "512"),
        _Setting("Training steps", _by_method(config, "steps"), "1,000,000"),
        _Setting("Peak learning rate", "; ".join([_by_method(config, "peak_lr"), *rates]), "1e-4"),
        _Setting("Adam eps", number(pretrain.adam_eps), "1e-6"),
        _Setting("Adam betas", "({:g}, {:g})".format(*pretrain.adam_betas), "(0.9, 0.98)"),
        _Setting("Warm-up steps", f"{pretrain.warmup_steps:,}", "10,000"),
        _Setting("Learning rate decay", DECAY[pretrain.schedule], "Linear"),
        _Setting("Dropout", number(encoder.dropout), "0.1"),
        _Setting("Weight decay", number(pretrain.weight_decay), "0.01"),
        _Setting("Encoder (section 4.1)", sizes, "12 layers, H 768, A 12, FFN 3072"),
        _Setting("Vocabulary (section 4.1.1)", vocabulary, "32,678"),
    ]


def _by_method(config: Config, key: str) -> str:
    """Returns the value of a key of [pretrain], and those of methods with their own."""
    return "; ".join([number(getattr(config.pretrain, key)), *own_values(config, key)])


def _table2(config: Config) -> list[_Setting]:
    """Returns the hyperparameters in the paper's order, and the number of seeds."""
    finetune = config.finetune
    return [
        _Setting("Batch size", _set(map(str, finetune.batch_sizes)), "{16, 32}"),
        _Setting("Maximum epoch", str(finetune.epochs), "10"),
        _Setting("Learning rate", _set(map(number, finetune.learning_rates)), "{1e-5, ..., 8e-5}"),
        _Setting("Warm-up ratio", number(finetune.warmup_ratio), "0.06"),
        _Setting("Weight decay", number(finetune.weight_decay), "0.1"),
        _Setting("Seeds per setting (section 4.1.2)", str(len(finetune.seeds)), "10"),
    ]


def _method_columns(config: Config) -> list[Column[str]]:
    method = config.method
    return [
        Column("Model", model_cell),
        Column("Pretraining task", lambda name: _task(method[name])),
        Column("Masking strategy", lambda name: _masks(method[name])),
        Column("Masking rate", lambda name: _mask_rate(method[name])),
        Column("Importance weights", lambda name: method[name].drawing.estimator),
        Column("MAP-Net objective", lambda name: m.objective if (m := method[name].mapnet) else "none"),
        Column("Loss weight (lambda)", lambda name: _weight(method[name])),
        Column("Steps with uniform masks", lambda name: _exploration(method[name])),
        *each(OWN_KEYS, lambda name, key: number(getattr(config.for_method(name).pretrain, key))),
        Column("Pretraining seeds", lambda name: "+".join(map(str, config.seeds_of(name)))),
    ]


def _task(method: Method) -> str:
    if not (electra := method.electra):
        return "masked-lm"
    weight = number(electra.detection_weight)
    return f"replaced-token, generator {electra.generator_fraction:g}, weight {weight}"


def _masks(method: Method) -> str:
    sampler = method.drawing.sampler
    return method.strategy if sampler == "gumbel" else f"{method.strategy}, {sampler}"


def _mask_rate(method: Method) -> str:
    return number(method.mask_rate) + (f" to {number(method.mask_rate_end)}" if method.mask_rate_end else "")


def _weight(method: Method) -> str | None:
    return f"{number(method.mapnet.loss_weight)} on {method.mapnet.loss_weight_on}" if method.mapnet else None


def _exploration(method: Method) -> str | None:
    start, end = method.exploration
    return f"{start:.0%} to {end:.0%}" if method.proposal or start or end else None


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(values) + "}"
