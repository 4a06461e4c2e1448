"""Jobs that run before the grid: probe tasks, tokenised tasks, and baselines without an encoder."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mapnet_cli.core import Artifacts, Baseline, Baselines, Row, TaskFacts, publishing
from mapnet_cli.finetune_glue import tokenised
from mapnet_cli.finetune_glue.examples import check_count, training_and_dev_sets
from mapnet_cli.finetune_glue.probes import make_probes
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import TASKS, Floats, GlueTask, score
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.text import FIRST_ORDINARY, verified_tokenizer

Predictor = Callable[[Tokenised], Floats]


class ProbeSizes(Row):
    """Result of `MakeProbes`: number of rows by task and file."""

    rows: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MakeProbes(Job):
    """Generates the probe tasks."""

    seed: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        with publishing(artifacts.path(self.key)) as temporary:
            rows = make_probes(temporary, self.seed)
        files = sorted(path for path in artifacts.path(self.key).rglob("*") if path.is_file())
        return Output(files, ProbeSizes(rows=rows))


@dataclass(frozen=True)
class TextSettings:
    """How texts are tokenised for a row of Table 3."""

    tokenizer: str  # key of the corpus manifest or import that provides the tokenizer
    lowercase: str  # as corpus.lowercase; "none" for an import, whose tokenizer takes unprocessed text
    max_length: int


@dataclass(frozen=True, kw_only=True)
class PrepareTask(Job):
    """Reads and checks a task's rows, and writes them as token ids."""

    task: GlueTask
    location: str | Path  # folder, zip file, or id on the Hugging Face Hub
    probe: bool
    subset: bool
    text: TextSettings
    max_train_examples: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        tokenizer = verified_tokenizer(artifacts, self.text.tokenizer)
        spec, max_length = self.task, self.text.max_length
        notes: list[str] = []
        files: list[Path] = []
        counts: dict[str, int] = {}
        official = True
        for split, examples in training_and_dev_sets(self.location, spec, self.subset):
            notes += [f"{split}: {note}" for note in examples.notes]
            if not check_count(spec, split, examples, self.subset or self.probe):
                official = False
                if not self.probe:
                    notes.append(f"{split}: {len(examples):,} rows (official: {spec.splits[split].rows:,})")
            if split == "train" and 0 < self.max_train_examples < len(examples):
                notes.append(f"{split}: only the first {self.max_train_examples:,} of {len(examples):,} rows used")
                examples = examples.first(self.max_train_examples)
            data, cut = tokenised.tokenise(examples, tokenizer, self.text.lowercase, max_length)
            if cut:
                notes.append(f"{split}: {cut:,} rows cut to {max_length} tokens")
            files += tokenised.save(artifacts.path(f"{self.key}/{split}"), data, examples.ids)
            counts[split] = len(data)
            progress(Progress(len(counts), 1 + len(spec.dev), split))
        if spec.name not in TASKS:
            notes.insert(0, f"not GLUE's, {counts['train']:,} training and {counts['dev']:,} dev rows")
        facts = TaskFacts(
            task=spec.name,
            train_examples=counts["train"],
            dev_examples=sum(counts.values()) - counts["train"],
            official=official and len(counts) == 1 + len(spec.dev),
            probe=self.probe,
            notes=notes,
            absent=[split for split in spec.dev.values() if split not in counts],
        )
        return Output(files, facts)


def load_task(artifacts: Artifacts, task: GlueTask, key: str) -> tuple[Any, dict[str, Any]]:
    """Returns a task's training set, and its dev sets by metric suffix. Raises DamagedError if a file has changed."""
    _verify(artifacts.root, key)
    absent = artifacts.read(key, TaskFacts).absent
    splits = {suffix: split for suffix, split in task.dev.items() if split not in absent}
    dev = {suffix: tokenised.load(artifacts.path(f"{key}/{split}")) for suffix, split in splits.items()}
    return tokenised.load(artifacts.path(f"{key}/train")), dev


@cache  # a task has many runs: verify it once per process
def _verify(root: Path, key: str) -> None:
    Artifacts(root).verify(key)


@dataclass(frozen=True, kw_only=True)
class ScoreBaselines(Job):
    """Scores the baselines without an encoder on one task."""

    task: GlueTask
    data: str

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        return Output([], Baselines(rows=baselines(self.task, *load_task(artifacts, self.task, self.data))))


def baselines(task: GlueTask, train: Tokenised, dev: dict[str, Tokenised]) -> list[Baseline]:
    """Returns the metrics of the majority class (for regression, the mean) and of fits to simple features.

    The bag of words counts tokens, separately for each text. Token overlap, of tasks with two texts, has no other
    feature than their Jaccard index: a threshold on it for two classes, its Pearson correlation for regression.
    """
    constant = float(train.labels.mean()) if task.regression else float(np.bincount(train.labels.astype(int)).argmax())
    predictors: dict[str, Predictor] = {"majority": lambda data: np.full(len(data), constant, dtype=np.float32)}
    features: dict[str, Callable[[Tokenised], Any]]
    features = {"bag of words": partial(_counts, width=int(train.tokens.max()) + 1)}
    if len(task.texts) == 2:
        features["token overlap"] = _overlap
    for name, of in features.items():  # a classifier can't be fitted to one class
        predictors[name] = _fit(task, train, of) if len(np.unique(train.labels)) > 1 else predictors["majority"]
    found = {name: dict[str, float]() for name in predictors}
    for (name, predict), (suffix, data) in product(predictors.items(), dev.items()):
        found[name] |= {metric + suffix: v for metric, v in score(task, predict(data), data.labels).items()}
    return [Baseline(task=task.name, name=name, metrics=metrics) for name, metrics in found.items()]


def _fit(task: GlueTask, train: Tokenised, features: Callable[[Tokenised], Any]) -> Predictor:
    """Returns the predictor of a logistic (ridge) regression."""
    from sklearn.linear_model import LogisticRegression, Ridge

    model = Ridge(alpha=10.0) if task.regression else LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit is used even if it hasn't converged
        model.fit(features(train), train.labels)
    return lambda data: np.asarray(model.predict(features(data)), dtype=np.float32)


def _overlap(data: Tokenised) -> Any:
    """Returns the Jaccard index of each example's two sets of tokens, [examples, 1]; special tokens don't count."""
    width = int(data.tokens.max()) + 1
    present = _counts(data, width).sign()
    first, second = present[:, FIRST_ORDINARY:width], present[:, width + FIRST_ORDINARY :]
    both = first.multiply(second).sum(axis=1)
    return (both / np.maximum(first.sum(axis=1) + second.sum(axis=1) - both, 1))[:, None]


def _counts(data: Tokenised, width: int) -> Any:
    """Returns a sparse matrix [examples, 2 * width]: token counts of the first text, then of the second."""
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(len(data)), data.lengths)
    second = np.arange(len(data.tokens)) - data.offsets[rows] >= data.second[rows]
    known = data.tokens < width
    columns = data.tokens.astype(np.int64) + width * second
    shape = (len(data), 2 * width)
    return csr_array((np.ones(int(known.sum()), dtype=np.float32), (rows[known], columns[known])), shape=shape)
