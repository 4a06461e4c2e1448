"""Model card of an exported checkpoint: metadata for the Hub, facts, usage, what the tokenizer does, and scores."""

import re
import statistics
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mapnet_cli.config import Corpus
from mapnet_cli.core import AbsentError, Checkpoint, CorpusManifest, TaskFacts, TunedEncoder, is_hub, render
from mapnet_cli.glue import TASKS, GlueTask, ScoreColumn, one_class, rows_used, runs_of, task_result, used_tasks
from mapnet_cli.lineage import Lineage, find_baselines, find_runs

_METRICS = {"mcc": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
"""The Hub's names of metrics, where they differ from ours."""


def model_card(lineage: Lineage, row: Checkpoint, manifest: CorpusManifest) -> str:
    """Returns the README.md of the exported folder."""
    config, start = lineage.config, lineage.config.method[row.method].init_from
    try:
        found = _scores(lineage, row)
    except AbsentError:  # no GLUE data, so no results either
        found = {"scores": []}
    results = [_result(lineage, column.task, column.metric, score / 100) for column, score in found["scores"]]
    if row.validation_loss is not None:
        text = "held-out", "held-out documents of the corpus"
        results.append(EvalResult("fill-mask", *text, "loss", round(row.validation_loss, 4)))
    return _card(
        f"{row.method} at step {row.step:,}", "fill-mask" if row.validation_loss is not None else "", config.corpus,
        results, start, row=row, manifest=manifest, config=config, fingerprint=lineage.corpus.fingerprint,
        versions=lineage.artifacts.require(row.path).versions, **found,
    )  # fmt: skip


def classifier_card(
    lineage: Lineage, encoder: tuple[str, int, int], task: GlueTask, row: TunedEncoder, corpus: Corpus
) -> str:
    """Returns the README.md of an exported classifier. `corpus` has the settings of its tokenizer."""
    (method, seed, step), metrics = encoder, row.epochs[-1].metrics
    return _card(
        f"{method} fine-tuned on {task.name}", "text-classification", corpus,
        [_result(lineage, task.name, metric, value) for metric, value in metrics.items()],
        lineage.config.method[method].init_from if step else lineage.tokenizer_of(method),
        row=row, encoder=f"{method}, pretraining seed {seed}, step {step:,}" if step else method, task=task,
        own=task.name not in TASKS or lineage.uses_probe, metrics=metrics, constant=one_class(metrics), scores=None,
        manifest=None,
    )  # fmt: skip


def _card(title: str, pipeline: str, corpus: Corpus, results: list[EvalResult], base: str, **shown: Any) -> str:
    """Returns a card with metadata for the Hub; `base` is the import from which the model began, "" for none."""
    licences = sorted({source.licence.lower() for source in corpus.sources if source.licence})
    known = len(licences) == 1 and re.fullmatch(r"[a-z\d.-]+", licences[0])
    data = ModelCardData(
        language=sorted({source.language for source in corpus.sources if source.language}) or None,
        license=licences[0] if known else "other" if licences else None,
        license_name=None if known or not licences else "-and-".join(re.sub(r"[^a-z\d.]+", "-", n) for n in licences),
        library_name="transformers", tags=["mapnet"], base_model=base or None, pipeline_tag=pipeline or None,
        datasets=sorted({s.path[4:].partition("@")[0] for s in corpus.sources if is_hub(s.path)}) or None,
        model_name=title, eval_results=results or None,
    )  # fmt: skip
    text = render(
        "mapnet_cli.huggingface", "model_card.md", title=title, pipeline=pipeline, corpus=corpus, base=base, **shown
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def _result(lineage: Lineage, task: str, metric: str, value: float) -> EvalResult:
    """Returns a score on a dev set; `value` is at most 1."""
    kind, _, mismatched = metric.partition("-")
    split = TASKS[task].splits["dev-mm" if mismatched else "dev"].hub if task in TASKS else "validation"
    of_glue = task in TASKS and not lineage.uses_probe
    name, where = (f"GLUE {task}", "nyu-mll/glue") if of_glue else (f"{task}, not GLUE's", task)
    return EvalResult(
        "text-classification", where, name, _METRICS.get(kind, kind), round(value, 4), metric_name=metric,
        dataset_config=TASKS[task].hub if of_glue else None, dataset_split=split,
    )  # fmt: skip


def _scores(lineage: Lineage, row: Checkpoint) -> dict[str, Any]:
    """Returns the scores of the tasks whose grid is complete, the same as in the report, and what they are of."""
    config, encoder = lineage.config, (row.method, row.pretrain_seed, row.step)
    found = (lineage.artifacts.find(lineage.main_task(task).key, TaskFacts) for task in used_tasks(config))
    limits = rows_used(config, filter(None, found))
    scores, doubts = list[tuple[ScoreColumn, float]](), list[str]()
    for task in config.finetune.tasks:
        runs = find_runs(lineage, encoder, task).values()
        complete = sum(run.checkpoint == row.fingerprint for run in runs) == len(runs_of(config, *encoder, task))
        result = task_result(runs, config, find_baselines(lineage, task)) if complete else None
        for column, by_seed in result.scores.items() if result else ():
            mean = statistics.fmean(scored.counted for scored in by_seed.values())
            scores.append((column, mean))
        doubts += result.doubts if result else ()
    data = "probe tasks, **not GLUE**" if lineage.uses_probe else f"GLUE dev sets{f' ({limits})' if limits else ''}"
    return {"scores": scores, "doubts": doubts, "data": data, "seeds": len(config.finetune.seeds)}
