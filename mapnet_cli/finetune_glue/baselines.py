"""What a task gives away without an encoder: the majority class, and a bag of words."""

import warnings
from typing import Any

import numpy as np

from mapnet_cli.core.records import Baseline
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue.metrics import Floats, score
from mapnet_cli.glue.tasks import GlueTask


def baselines(task: GlueTask, train: Tokenised, dev: dict[str, Tokenised]) -> list[Baseline]:
    """Returns the two baselines' metrics. For regression "majority" is the mean, "bag of words" ridge regression."""
    majority: dict[str, float] = {}
    bag: dict[str, float] = {}
    constant = float(train.labels.mean()) if task.regression else float(np.bincount(train.labels.astype(int)).argmax())
    alone = len(np.unique(train.labels)) == 1  # nothing to tell apart: the words can't help
    predictor = (lambda data: np.full(len(data), constant, dtype=np.float32)) if alone else _fit(task, train)
    for suffix, data in dev.items():
        guesses = {"majority": np.full(len(data), constant, dtype=np.float32), "bag": predictor(data)}
        majority |= {name + suffix: v for name, v in score(task, guesses["majority"], data.labels).items()}
        bag |= {name + suffix: v for name, v in score(task, guesses["bag"], data.labels).items()}
    return [
        Baseline(task=task.name, name="majority", metrics=majority),
        Baseline(task=task.name, name="bag of words", metrics=bag),
    ]


def _fit(task: GlueTask, train: Tokenised) -> Any:
    """Returns a predictor: logistic (ridge) regression on token counts, each text's counted apart."""
    from sklearn.linear_model import LogisticRegression, Ridge

    width = int(train.tokens.max()) + 1
    model = Ridge(alpha=10.0) if task.regression else LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged in 1000 iterations: the fit stands as it is
        model.fit(_counts(train, width), train.labels)

    def predict(data: Tokenised) -> Floats:
        return np.asarray(model.predict(_counts(data, width)), dtype=np.float32)

    return predict


def _counts(data: Tokenised, width: int) -> Any:
    """Returns a sparse matrix [examples, 2 * width]: counts of the first text's tokens, then of the second's."""
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(len(data)), data.lengths)
    second = np.arange(len(data.tokens)) - data.offsets[rows] >= data.second[rows]
    known = data.tokens < width
    columns = data.tokens.astype(np.int64) + width * second
    shape = (len(data), 2 * width)
    return csr_array((np.ones(int(known.sum()), dtype=np.float32), (rows[known], columns[known])), shape=shape)
