"""A method's score and held-out losses over its checkpoints, with what each checkpoint cost."""

from typing import NamedTuple

from mapnet_cli.report.gather import Results
from mapnet_cli.report.scores import Scores, mean, spread


class Place(NamedTuple):
    """A checkpoint: what one pretraining up to it cost, and a value with its standard deviation over seeds."""

    steps: float
    flops: float
    hours: float
    value: float
    sd: float


def score_trajectory(results: Results, scores: Scores, method: str) -> list[Place]:
    """Returns the average score of each checkpoint that has one over all columns."""
    averages = [(step, scores.averages[method, step]) for step in results.config.fine_tuned_steps(method)]
    return [
        Place(step, average.flops, average.hours, average.mean, average.sd or 0.0)
        for step, average in averages
        if average.mean is not None and average.columns == len(scores.columns)
        if average.flops is not None and average.hours is not None
    ]


def loss_trajectory(results: Results, name: str, method: str, seeds: set[int]) -> list[Place]:
    """Returns the mean over pretraining seeds of a held-out loss, for each checkpoint that all of them have."""
    places = []
    for step in results.config.milestone_steps(method):
        rows = [row for seed in sorted(seeds) if (row := results.checkpoints.get((method, seed, step)))]
        losses = [row.validation[name] for row in rows if name in row.validation]
        if losses and len(losses) == len(seeds):
            hours = mean(row.seconds for row in rows) / 3600
            places.append(Place(step, mean(row.flops for row in rows), hours, mean(losses), spread(losses) or 0.0))
    return places


def seeds_with(results: Results, name: str, method: str) -> set[int]:
    """Returns the pretraining seeds of a method whose last checkpoint has a held-out loss."""
    last = max(results.config.milestone_steps(method))
    found = results.checkpoints.items()
    return {seed for (whose, seed, step), row in found if (whose, step) == (method, last) and name in row.validation}
