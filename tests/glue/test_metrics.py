"""Metrics computed by hand, and baselines on data with known scores."""

import itertools

import numpy as np
import pytest

from mapnet_cli.core import Baseline, EpochScores, FinetuneRun
from mapnet_cli.finetune_glue.prepare import baselines
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue.scoring import SPLITS, one_class, score, score_halves, task_result
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.text.words import CLS, SEP, UNK
from tests.conftest import small_config


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_binary_metrics_by_hand() -> None:
    """3 true positives, 1 false positive, 2 false negatives, 4 true negatives."""
    labels = array(1, 1, 1, 1, 1, 0, 0, 0, 0, 0)
    predicted = array(1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    values = score(TASKS["MRPC"], predicted, labels)
    assert values["accuracy"] == pytest.approx(0.7)
    assert values["f1"] == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    assert values["mcc"] == pytest.approx((3 * 4 - 1 * 2) / (4 * 5 * 5 * 6) ** 0.5)


def test_regression_metrics_by_hand() -> None:
    values = score(TASKS["STS-B"], array(1, 2, 3, 10), array(1, 2, 3, 4))
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson"] == pytest.approx(np.corrcoef([1, 2, 3, 10], [1, 2, 3, 4])[0, 1])


def test_constant_predictions_score_zero_without_a_warning() -> None:
    assert score(TASKS["STS-B"], array(1, 1, 1), array(1, 2, 3)) == {"pearson": 0.0, "spearman": 0.0}
    assert score(TASKS["CoLA"], array(1, 1, 1), array(1, 0, 1))["mcc"] == 0.0
    assert score(TASKS["CoLA"], array(0, 0, 0), array(1, 0, 1))["f1"] == 0.0


@pytest.mark.filterwarnings("ignore")
def test_metrics_agree_with_scikit_learn() -> None:
    """All confusion matrices of two classes with counts up to 2, undefined metrics included, and some of three."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    rng, cases = np.random.default_rng(0), list[tuple[np.ndarray, np.ndarray]]()
    for tp, fp, fn, tn in itertools.product(range(3), repeat=4):
        cases.append((array(*[1] * (tp + fp), *[0] * (fn + tn)), array(*[1] * tp, *[0] * fp, *[1] * fn, *[0] * tn)))
    for rows in range(1, 30):
        cases.append((rng.integers(0, 3, rows).astype(np.float32), rng.integers(0, 3, rows).astype(np.float32)))
    for predicted, labels in cases[1:]:
        task = TASKS["RTE" if max(*predicted, *labels) < 2 else "MNLI"]
        expected = {"accuracy": accuracy_score(labels, predicted), "mcc": matthews_corrcoef(labels, predicted)}
        if task.name == "RTE":
            expected["f1"] = f1_score(labels, predicted, zero_division=0.0)
        else:
            expected["macro_f1"] = f1_score(labels, predicted, average="macro", zero_division=0.0)
        assert score(task, predicted, labels) == pytest.approx(expected), (predicted, labels)


@pytest.mark.parametrize(("task", "predicted", "constant"), [
    ("CoLA", (1, 1, 1, 1), True), ("CoLA", (0, 0, 0, 0), True), ("CoLA", (1, 0, 1, 0), False),
    ("CoLA", (1, 1, 0, 0), False), ("MNLI", (2, 2, 2, 2), True), ("MNLI", (2, 0, 1, 1), False),
    ("STS-B", (3, 3, 3, 3), True), ("STS-B", (3, 3, 3, 4), False),
])  # fmt: skip
def test_predictions_of_one_class_are_recognised(task: str, predicted: tuple[float, ...], constant: bool) -> None:
    """Also among metrics of MNLI's other dev set; (1, 0, 1, 0) has an MCC of 0 as well."""
    metrics = score(TASKS[task], array(*predicted), array(0, 0, 1, 1))
    assert one_class(metrics) == constant
    assert one_class({f"{name}-mm": value for name, value in metrics.items()}, "-mm") == constant


@pytest.mark.parametrize("name", ["RTE", "MNLI", "STS-B"])
def test_halves_are_the_same_for_every_run(name: str) -> None:
    rng, task = np.random.default_rng(0), TASKS[name]
    labels, predicted, other = rng.integers(0, len(task.labels) or 5, (3, 41)).astype(np.float32)
    halves = score_halves(task, predicted, labels)
    assert len(halves) == SPLITS and halves == score_halves(task, predicted, labels)
    assert halves != score_halves(task, other, labels)
    perfect = score_halves(task, labels, labels)
    assert all(value == 1.0 for both in perfect for half in both for value in half.values())
    if not task.regression:
        whole = score(task, predicted, labels)["accuracy"]
        assert all(20 * a["accuracy"] + 21 * b["accuracy"] == pytest.approx(41 * whole, abs=1e-4) for a, b in halves)


def pairs(rows: list[tuple[list[int], list[int]]], labels: list[float]) -> Tokenised:
    sequences = [[CLS, *a, SEP, SEP, *b, SEP] for a, b in rows]
    offsets = np.cumsum([0, *map(len, sequences)])
    second = np.array([len(a) + 2 for a, _ in rows])
    return Tokenised(np.concatenate(sequences).astype(np.uint32), offsets, array(*labels), second)


def test_bag_of_words_counts_the_two_texts_separately() -> None:
    """The label is whether token 9 is in the second text, so joint counts have no information."""
    rows = [([9], [10]), ([10], [9])] * 20
    data = pairs(rows, [0, 1] * 20)
    majority, bag, _ = baselines(TASKS["RTE"], data, {"": data})
    assert (majority.name, majority.metrics["accuracy"]) == ("majority", 0.5)
    assert (bag.name, bag.metrics["accuracy"]) == ("bag of words", 1.0)


def test_tokens_unseen_in_training_are_ignored() -> None:
    train = pairs([([9], [10]), ([10], [9])] * 5, [0, 1] * 5)
    dev = pairs([([9, 99], [10]), ([10], [9, 98])], [0, 1])
    assert baselines(TASKS["RTE"], train, {"": dev})[1].metrics["accuracy"] == 1.0


def test_regression_baselines() -> None:
    rows = [([9] * n, [10]) for n in range(1, 9)]
    data = pairs(rows, [n / 8 for n in range(8)])
    mean, bag, _ = baselines(TASKS["STS-B"], data, {"": data})
    assert mean.metrics["pearson"] == 0.0
    assert bag.metrics["pearson"] == pytest.approx(1.0, abs=1e-4)


OVERLAPS = [([9], [9]), ([9, 9, 10], [10, 11]), ([9, 10, 11], [12, 9, 9, 10]), ([9], [10]), ([9, UNK], [UNK]), ([], [])]
JACCARD = [1, 1 / 3, 1 / 2, 0, 0, 0]
"""By hand: sets of tokens, without special ones; two empty texts have nothing in common."""


def test_token_overlap_is_the_jaccard_index() -> None:
    """A threshold on it for two classes and, for regression, a line; tasks with one text have no such baseline."""
    data = pairs(OVERLAPS * 20, [jaccard * 0.8 for jaccard in JACCARD] * 20)
    found = {row.name: row.metrics for row in baselines(TASKS["STS-B"], data, {"": data})}
    assert found["token overlap"]["pearson"] == pytest.approx(1.0)
    classes = pairs(OVERLAPS * 20, [float(jaccard < 0.4) for jaccard in JACCARD] * 20)
    for name, suffixes in (("RTE", [""]), ("MNLI", ["", "-mm"])):
        found = {row.name: row.metrics for row in baselines(TASKS[name], classes, dict.fromkeys(suffixes, classes))}
        assert {suffix: found["token overlap"][f"accuracy{suffix}"] for suffix in suffixes} == dict.fromkeys(
            suffixes, 1
        )
    assert [row.name for row in baselines(TASKS["CoLA"], classes, {"": classes})] == ["majority", "bag of words"]
    one = pairs(OVERLAPS, [0.0] * 6)
    assert {row.name: row.metrics["accuracy"] for row in baselines(TASKS["RTE"], one, {"": classes})} == dict.fromkeys(
        ("majority", "bag of words", "token overlap"), pytest.approx(1 / 3)
    )


def test_scores_that_mean_little_are_named() -> None:
    """Of a setting's three runs, two predict one class; the other setting is worse, so its runs don't matter."""
    labels, config = array(0, 0, 1, 1), small_config('finetune.tasks=["CoLA"]')

    def run(seed: int, lr: float, *predicted: float) -> FinetuneRun:
        scores = score(TASKS["CoLA"], array(*predicted), labels)
        return FinetuneRun(
            method="bert", pretrain_seed=1, step=9, checkpoint="", task="CoLA", batch_size=8, lr=lr, seed=seed,
            settings={}, train_examples=4, dev_examples=4, failure="", device="cpu",
            epochs=[EpochScores(epoch=1, train_loss=1.0, metrics=scores)],
        )  # fmt: skip

    def doubts(runs: list[FinetuneRun], bag: float) -> tuple[str, ...]:
        result = task_result(runs, config, [Baseline(task="CoLA", name="bag of words", metrics={"mcc": bag})])
        return result.doubts if result else ()

    runs = [run(1, 0.1, 1, 1, 1, 1), run(2, 0.1, 0, 0, 0, 1), run(3, 0.1, 0, 0, 0, 0), run(1, 0.2, 1, 1, 1, 1)]
    runs += [run(2, 0.2, 1, 0, 0, 0), run(3, 0.2, 1, 0, 1, 0)]
    constant = "CoLA: 2 of 3 runs predict one class (or value) for all examples"
    assert doubts(runs, 0.19) == (constant,)
    assert doubts(runs, 0.2) == (constant, "CoLA: not above the bag of words (19.25 against 20.00)")
    assert doubts(runs[1:2], 0.0) == doubts([], 0.0) == ()
