"""Config section of fine-tuning, and where a task's data are."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mapnet_cli.config.base import (
    GLUE_TASKS,
    Count,
    Counts,
    Ints,
    NonNegative,
    Positive,
    Rates,
    Section,
    Share,
    Shares,
    TaskName,
    TaskNames,
    ZeroOrMore,
    added,
    operational,
)
from mapnet_cli.config.training import Optimiser


class TaskData(Section):
    """[finetune.task_data.NAME]: where a task of GLUE is, or a task of one's own, and how to read its files."""

    path: str = ""
    """Location of a task that is not in `finetune.data`; `task_data = {QQP = "elsewhere/qqp"}` sets it alone."""
    text: str | Annotated[tuple[str, str], Field(strict=False)] = ""
    """Column with the text, or both columns of pairs: ["premise", "hypothesis"]. Required for a task of one's own."""
    label: str = ""
    """Column with the class or score; empty: label, labels, gold_label, target or class, or score for regression."""
    labels: Annotated[tuple[str | int, ...], Field(strict=False)] = ()
    """Class names in the data, in the order of their numbers. For a task of one's own, F1 is of the second of two."""
    range: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """Smallest and largest score, for regression: [0, 5] for STS-B."""
    metric: str = ""
    """Metric to use as the score, unless finetune.metrics sets it; empty: accuracy, or pearson for regression."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> "TaskData":
        if self.labels and (self.range or len(self.labels) < 2):
            raise ValueError("labels are the names of at least two classes, and range is for scores: set one of them")
        if self.label and self.label in ([self.text] if isinstance(self.text, str) else self.text):
            raise ValueError(f"text and label are the same column, {self.label!r}")
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError("range is the smallest and the largest score")
        return self

    def reading(self) -> dict[str, Any]:
        """Returns the keys that are set and affect how the data is read, as plain JSON values."""
        view = self.model_dump(mode="json", include={"text", "label", "labels", "range"})
        return {key: value for key, value in view.items() if value}


NON_RUN_KEYS = (
    "data", "task_data", "subsets", "tasks", "milestones", "batch_sizes", "learning_rates", "seeds", "metrics", "epoch",
    "max_train_examples", "from_mnli", "mnli_batch_size", "mnli_learning_rate", "untrained", "baselines", "seed",
)  # fmt: skip
"""Keys of [finetune] that select runs, describe their inputs or affect only reports."""


class Finetune(Optimiser):
    """[finetune], with the values of Table 2 and section 4.1.2 as defaults."""

    data: str = "glue"
    """Location of the tasks: a folder with one subfolder (TSV, JSONL or saved by `datasets`) or official zip file per
    task; "hub:OWNER/NAME" for a dataset on the Hugging Face Hub; or "probe" for the built-in probe tasks."""
    task_data: dict[TaskName, TaskData] = Field(default_factory=dict)
    """Tasks with another location, other columns or other labels than GLUE's, and tasks of one's own."""
    subsets: TaskNames = ()
    """Tasks whose row counts may differ from official GLUE; every table notes it."""
    tasks: TaskNames = GLUE_TASKS[:8]
    """Names of GLUE's tasks, in any case and with or without hyphens, or of tasks of one's own in `task_data`. Empty:
    no fine-tuning."""
    milestones: Shares = ()
    """The pretrain.milestones to fine-tune; empty: all."""
    batch_sizes: Annotated[Counts, Field(min_length=1)] = (16, 32)
    """Every combination of batch size and learning rate is one setting of the grid."""
    learning_rates: Annotated[Rates, Field(min_length=1)] = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5)
    """Peak learning rates of the grid."""
    seeds: Annotated[Ints, Field(min_length=1)] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """Fine-tuning seeds; every setting is run once per seed."""
    epochs: Count = 10
    """Passes over the training set."""
    warmup_ratio: Share = 0.06
    """Fraction of the steps used for warm-up."""
    weight_decay: ZeroOrMore = 0.1
    dropout: Share = 0.1
    """Dropout of the classification head; for the encoder, see [encoder]."""
    pooling: Literal["cls", "mean"] = added("cls")
    """Input of the classification head. cls: the vector at [CLS]; mean: the mean over all tokens of the last layer,
    [CLS] and [SEP] included, padding not."""
    batching: Literal["random", "by-length"] = "random"
    """by-length: batches of similar length in random order; slightly faster, but batches are less random."""
    metrics: dict[TaskName, str] = Field(default_factory=dict)
    """Metrics to use as the scores of tasks instead of the defaults, for example {MRPC = "f1"}."""
    epoch: Literal["best", "last"] = "best"
    """Epoch whose dev score is reported for a run; both are recorded."""
    max_train_examples: NonNegative = 0
    """Use only the first N training rows of each task; every table notes it. 0: all."""
    from_mnli: TaskNames = ()
    """Tasks that start from an MNLI-tuned encoder, as in RoBERTa for RTE, MRPC and STS-B."""
    mnli_batch_size: Count = 32
    """Batch size of the MNLI fine-tuning for from_mnli."""
    mnli_learning_rate: Positive = 3e-5
    """Learning rate of the MNLI fine-tuning, which runs once per encoder, with the first of `seeds`."""
    untrained: bool = False
    """Also fine-tune the methods' encoder from random weights, to show the benefit of pretraining."""
    baselines: bool = True
    """Also score majority class, bag of words and token overlap, for the per-task table."""
    keep: Literal["none", "best"] = operational("none")
    """best: after the grid, repeat the best run of each encoder on each task, and keep its model for `mapnet export
    --task` with its predictions for the dev set. Takes the disk space of an encoder each."""
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 (autocast) on a GPU or CPU with hardware for it, else float32."""
    threads: Count = operational(1)
    """CPU threads per fine-tuning run."""
    compile: bool = operational(False)
    """Use torch.compile and CUDA graphs for training, with lengths padded to powers of two. For GPUs."""
    runs_per_gpu: NonNegative = operational(0)
    """Fine-tuning runs that share a GPU; 0: as many as fit into its memory by a conservative estimate."""
    seed: int = 1
    """Seed for generating the probe tasks."""

    def run_settings(self) -> dict[str, Any]:
        """Returns the settings that all runs share, as plain JSON values: all keys but those of `NON_RUN_KEYS`."""
        return {key: value for key, value in self.results_view().items() if key not in NON_RUN_KEYS}
