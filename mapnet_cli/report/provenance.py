"""What a report's numbers come from: signatures, the records beside the page, and what is missing."""

from collections.abc import Mapping

from mapnet_cli.config import Config
from mapnet_cli.report.load import Results
from mapnet_cli.report.runs import json_line, record_line

SIGNED_VERSIONS = ("mapnet", "torch", "tokenizers", "python")


def signature(results: Results, metrics: Mapping[str, str]) -> str:
    """Returns the settings that scores depend on, in the style of sacrebleu's signatures."""
    config = results.config
    parts = {
        "recipe": config.recipe or "custom",
        "config": results.fingerprint[:8],
        "data": "probe" if config.finetune.data == "probe" else "glue",
        "steps": _steps(config),
        "pretrain-seeds": _pretraining_seeds(config),
        "finetune-seeds": "+".join(map(str, config.finetune.seeds)),
        "epoch": config.finetune.epoch,
        "metrics": "+".join(f"{task}={metric}" for task, metric in metrics.items()),
    }
    if config.finetune.from_mnli:
        parts["from-mnli"] = "+".join(config.finetune.from_mnli)
    if config.finetune.pooling != "cls":
        parts["pooling"] = config.finetune.pooling
    if config.finetune.max_train_examples:
        parts["train-rows"] = f"first-{config.finetune.max_train_examples}"
    parts |= {name: "+".join(results.versions.get(name, ("none",))) for name in SIGNED_VERSIONS}
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def short_signature(results: Results) -> str:
    """Returns recipe, config, tasks x pretraining seeds, and version: "mapnet|small|84c5a1a7|5x3|v0.2.0"."""
    config = results.config
    seeds = max((len(config.seeds_of(method)) for method in config.methods), default=0)
    version = "+".join(results.versions.get("mapnet", ("none",)))
    parts = (config.recipe or "custom", results.fingerprint[:8], f"{len(config.finetune.tasks)}x{seeds}", f"v{version}")
    return "|".join(("mapnet", *parts))


def missing(results: Results) -> list[str]:
    """Returns one line per kind of record that is missing, with counts."""
    config = results.config
    lines = []
    if results.manifest is None and config.methods:
        lines.append("the corpus manifest")
    if absent := [key for key in results.expected_checkpoints if key not in results.checkpoints]:
        by_method = ", ".join(f"{name} {sum(key[0] == name for key in absent)}" for name in config.methods)
        lines.append(f"{len(absent)} of {len(results.expected_checkpoints)} checkpoints ({by_method})")
    if (absent_pairs := results.expected_pair_scores - len(results.pair_scores)) > 0:
        lines.append(f"{absent_pairs:,} of {results.expected_pair_scores:,} records of minimal pairs")
    if len(results.runs) < results.expected_runs:
        lines.append(f"{results.expected_runs - len(results.runs):,} of {results.expected_runs:,} fine-tuning runs")
    if config.finetune.baselines:
        scored = {row.task for row in results.baselines}
        if bare := [task for task in config.finetune.tasks if task not in scored]:
            lines.append(f"baselines for {len(bare)} of {len(config.finetune.tasks)} tasks ({', '.join(bare)})")
    return lines


def next_command(results: Results) -> str:
    """Returns the command that creates the first missing records, "" if none are missing."""
    if results.manifest is None and results.config.methods:
        return "mapnet prepare-corpus"
    if any(key not in results.checkpoints for key in results.expected_checkpoints):
        return "mapnet pretrain"
    if len(results.pair_scores) < results.expected_pair_scores:
        return "mapnet minimal-pairs"
    return "mapnet finetune-glue" if missing(results) else ""


def _pretraining_seeds(config: Config) -> str:
    return _with_own(config.pretrain.seeds, {name: config.method[name].seeds for name in config.methods})


def _steps(config: Config) -> str:
    own = {name: config.fine_tuned_steps(name) if config.method[name].steps else () for name in config.methods}
    return _with_own(config.fine_tuned_steps(), own)


def _with_own(common: tuple[int, ...], own: Mapping[str, tuple[int, ...]]) -> str:
    """Returns the common numbers (if any method uses them), then "NAME:NUMBERS" of each method that has its own."""
    named = [f"{name}:{'+'.join(map(str, numbers))}" for name, numbers in own.items() if numbers]
    shared = ["+".join(map(str, common))] if len(named) < len(own) or not own else []
    return ",".join([*shared, *named])


def record_lines(results: Results, signed: str) -> list[bytes]:
    """Returns the lines of records.jsonl up to the fine-tuning runs: the signature, then one line per record."""
    # without the quotes from dropped paragraphs: a report may be published where the text may not
    corpus = [results.manifest.model_copy(update={"examples": {}})] if results.manifest else []
    trained = (*results.imports, *results.checkpoints.values())
    rows = (*corpus, *trained, *results.pair_scores, *results.tasks.values(), *results.baselines)
    return [json_line({"record": "signature", "signature": signed}), *map(record_line, rows)]
