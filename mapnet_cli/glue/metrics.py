"""GLUE's metrics by name, from scikit-learn and SciPy.

Where a metric is undefined (a constant prediction has no correlation) it is 0.
"""

import math
import warnings

import numpy as np
import numpy.typing as npt

from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.glue.tasks import GlueTask

Floats = npt.NDArray[np.float32]
Halves = list[tuple[dict[str, float], dict[str, float]]]
SPLITS = 5
"""Ways in which a dev set is halved; the same for all runs of a task."""
DIGITS = 6
"""Of a half's metrics on disk."""


def score(task: GlueTask, predicted: Floats, labels: Floats) -> dict[str, float]:
    """Returns every metric of the task: class ids are compared, or for regression scores / 5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant has no correlation, one class no matrix: 0, as said above
        return _regression(predicted, labels) if task.regression else _classes(task, predicted, labels)


def _regression(predicted: Floats, labels: Floats) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if len(labels) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    values = {"pearson": pearsonr(predicted, labels).statistic, "spearman": spearmanr(predicted, labels).statistic}
    return {name: 0.0 if math.isnan(value) else float(value) for name, value in values.items()}


def _classes(task: GlueTask, predicted: Floats, labels: Floats) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    metrics = {"accuracy": float(accuracy_score(labels, predicted))}
    if len(task.labels) == 2:
        metrics["f1"] = float(f1_score(labels, predicted, pos_label=1, zero_division=0.0))
        metrics["mcc"] = float(matthews_corrcoef(labels, predicted))
    return metrics


def score_halves(task: GlueTask, predicted: Floats, labels: Floats) -> Halves:
    """Returns every metric on both halves of the set, for each of SPLITS random splits."""
    found: Halves = []
    for split in range(SPLITS):
        order = np.random.default_rng(derive_seed(split, "dev halves", task.name)).permutation(len(labels))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        found.append((_rounded(task, predicted, labels, first), _rounded(task, predicted, labels, second)))
    return found


def _rounded(task: GlueTask, predicted: Floats, labels: Floats, rows: npt.NDArray[np.int64]) -> dict[str, float]:
    guesses, truth = predicted[rows], labels[rows]
    if not len(rows):  # half of a set of one row
        values = dict.fromkeys(score(task, predicted, labels), 0.0)
    elif len(task.labels) == 2:
        values = from_counts(*(int(((guesses == g) & (truth == t)).sum()) for g in (1, 0) for t in (1, 0)))
    else:
        values = score(task, guesses, truth)
    return {name: round(value, DIGITS) for name, value in values.items()}


def from_counts(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """Returns the binary metrics from true and false positives and negatives.

    Ten halves an epoch would take scikit-learn longer than a small model's epoch; a test holds this to it.
    """
    spread = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "mcc": (tp * tn - fp * fn) / spread if spread else 0.0,
    }
