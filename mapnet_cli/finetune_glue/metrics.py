"""GLUE's metrics by name, from scikit-learn and SciPy.

Where a metric is undefined (a constant prediction has no correlation) it is 0.
"""

import math
import warnings

import numpy as np
import numpy.typing as npt

from mapnet_cli.finetune_glue.tasks import GlueTask

Floats = npt.NDArray[np.float32]


def score(task: GlueTask, predicted: Floats, labels: Floats) -> dict[str, float]:
    """Returns every metric of the task: class ids are compared, or for regression scores / 5."""
    if task.regression:
        from scipy.stats import pearsonr, spearmanr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant input: nan, which becomes 0
            values = {
                "pearson": pearsonr(predicted, labels).statistic,
                "spearman": spearmanr(predicted, labels).statistic,
            }
        return {name: 0.0 if math.isnan(value) else float(value) for name, value in values.items()}
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    metrics = {"accuracy": float(accuracy_score(labels, predicted))}
    if len(task.labels) == 2:
        metrics["f1"] = float(f1_score(labels, predicted, pos_label=1, zero_division=0.0))
        metrics["mcc"] = float(matthews_corrcoef(labels, predicted))
    return metrics
