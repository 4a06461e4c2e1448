"""What a report's numbers come from: signatures, the records beside the page, and what is missing."""

from collections.abc import Mapping

from mapnet_cli.glue import fine_tuned
from mapnet_cli.lineage import scored_encoders
from mapnet_cli.report.load import Results, runs_of_a_task
from mapnet_cli.report.runs import json_line, record_line

SIGNED_VERSIONS = ("mapnet", "torch", "tokenizers", "python")


def signature(results: Results, metrics: Mapping[str, str]) -> str:
    """Returns the settings that scores depend on, in the style of sacrebleu's signatures."""
    config, finetune = results.config, results.config.finetune
    own_steps = {m: config.fine_tuned_steps(m) for m in config.methods if config.method[m].steps}
    own_seeds = {m: config.method[m].seeds for m in config.methods if config.method[m].seeds}
    parts = {
        "recipe": config.recipe or "custom",
        "config": results.fingerprint[:8],
        "data": "probe" if finetune.data == "probe" else "glue",
        "steps": _with_own(config.fine_tuned_steps(), own_steps, len(config.methods)),
        "pretrain-seeds": _with_own(config.pretrain.seeds, own_seeds, len(config.methods)),
        "finetune-seeds": "+".join(map(str, finetune.seeds)),
        "epoch": finetune.epoch,
        "metrics": "+".join(f"{task}={metric}" for task, metric in metrics.items()),
        "from-mnli": "+".join(finetune.from_mnli),
        "pooling": finetune.pooling if finetune.pooling != "cls" else "",
        "train-rows": f"first-{finetune.max_train_examples}" if finetune.max_train_examples else "",
        **{name: "+".join(results.versions.get(name, ("none",))) for name in SIGNED_VERSIONS},
    }
    return "|".join(f"{name}:{value}" for name, value in parts.items() if value)


def _with_own(common: tuple[int, ...], own: Mapping[str, tuple[int, ...]], methods: int) -> str:
    """Returns the common numbers (if any method uses them), then "NAME:NUMBERS" of each method that has its own."""
    shared = ["+".join(map(str, common))] if len(own) < methods or not own else []
    return ",".join([*shared, *(f"{name}:{'+'.join(map(str, numbers))}" for name, numbers in own.items())])


def short_signature(results: Results) -> str:
    """Returns recipe, config, tasks x pretraining seeds, and version: "mapnet|small|84c5a1a7|5x3|v0.2.0"."""
    config = results.config
    seeds = max((len(config.seeds_of(method)) for method in config.methods), default=0)
    version = "+".join(results.versions.get("mapnet", ("none",)))
    parts = (config.recipe or "custom", results.fingerprint[:8], f"{len(config.finetune.tasks)}x{seeds}", f"v{version}")
    return "|".join(("mapnet", *parts))


def missing(results: Results) -> dict[str, str]:
    """Returns {what is missing, with counts: the command that makes it}, in the order of the commands."""
    config, found = results.config, dict[str, str]()
    if results.manifest is None and config.methods:
        found["the corpus manifest"] = "mapnet prepare-corpus"
    if absent := [key for key in results.expected_checkpoints if key not in results.checkpoints]:
        by_method = ", ".join(f"{name} {sum(key[0] == name for key in absent)}" for name in config.methods)
        found[f"{len(absent)} of {len(results.expected_checkpoints)} checkpoints ({by_method})"] = "mapnet pretrain"
    pairs = len(scored_encoders(config)) * len(config.minimal_pairs.sets)
    if len(results.pair_scores) < pairs:
        found[f"{pairs - len(results.pair_scores):,} of {pairs:,} records of minimal pairs"] = "mapnet minimal-pairs"
    runs = len(fine_tuned(config)) * len(config.finetune.tasks) * runs_of_a_task(config)
    if len(results.runs) < runs:
        found[f"{runs - len(results.runs):,} of {runs:,} fine-tuning runs"] = "mapnet finetune-glue"
    scored = {row.task for row in results.baselines}
    if config.finetune.baselines and (bare := [task for task in config.finetune.tasks if task not in scored]):
        what = f"baselines for {len(bare)} of {len(config.finetune.tasks)} tasks ({', '.join(bare)})"
        found[what] = "mapnet finetune-glue"
    return found


def record_lines(results: Results, signed: str) -> list[bytes]:
    """Returns the lines of records.jsonl up to the fine-tuning runs: the signature, then one line per record."""
    # without the quotes from dropped paragraphs: a report may be published where the text may not
    corpus = [results.manifest.model_copy(update={"examples": {}})] if results.manifest else []
    trained = (*results.imports, *results.checkpoints.values())
    rows = (*corpus, *trained, *results.pair_scores, *results.tasks.values(), *results.baselines)
    return [json_line({"record": "signature", "signature": signed}), *map(record_line, rows)]
