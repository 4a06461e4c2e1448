"""Score and held-out loss of each method by steps, FLOPs and hours: what a method gains, beside what it costs."""

from typing import TYPE_CHECKING

from mapnet_cli.core.plotting import FAINT, images, legend_shape, style
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import label, on_what
from mapnet_cli.report.scores import Scores
from mapnet_cli.report.trajectories import Place, loss_trajectory, score_trajectory, scored_seeds, seeds_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSS = "validation_loss_refit"
COSTS = {"steps": "Pretraining steps", "flops": "Pretraining FLOPs", "hours": "Hours of pretraining"}
CAPTION = (
    "Checkpoints; bars: ± one standard deviation over seeds. Refitted: the output bias alone is fitted anew, which"
    " takes out what a method's masks do to the prior."
)


def curves(results: Results, scores: Scores) -> dict[str, bytes]:
    """Returns the figure as {"png": ..., "svg": ...}; both have the same bytes for the same records."""
    methods = results.config.methods
    rows = {
        "Average score": [
            score_trajectory(results, scores, method, scored_seeds(results, scores, method)) for method in methods
        ],
        "Held-out loss, refitted (nats)": [
            loss_trajectory(results, LOSS, method, seeds_with(results, LOSS, method)) for method in methods
        ],
    }
    title = f"Score and held-out loss by cost{on_what(results)}"
    signed = signature(results, scores.metrics)
    return images(lambda figure: draw_curves(figure, title, methods, rows), title, signed, ("png", "svg"))


def draw_curves(figure: "Figure", title: str, methods: tuple[str, ...], rows: dict[str, list[list[Place]]]) -> None:
    """Draws a row of panels for each value: `rows` has, by name, each method's places."""
    from matplotlib.lines import Line2D

    across, deep = legend_shape([label(method) for method in methods], 8.4)
    head = 0.66 + 0.18 * deep
    height = 4.7 + head
    figure.set_size_inches(9.2, height)
    grid = figure.subplots(len(rows), len(COSTS), sharey="row", sharex="col", squeeze=False)
    for axes, (name, lines) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name)
        for ax, cost in zip(axes, COSTS, strict=True):
            _panel(ax, lines, cost)
    for ax, name in zip(grid[-1], COSTS.values(), strict=True):
        ax.set_xlabel(name)
    figure.subplots_adjust(0.075, 0.7 / height, 0.985, 1 - head / height, wspace=0.08, hspace=0.1)
    figure.text(0.075, 1 - 0.25 / height, title, fontsize=12, fontweight="bold")
    figure.legend(
        handles=[Line2D([], [], label=label(method), **style(number)) for number, method in enumerate(methods)],
        loc="upper left", bbox_to_anchor=(0.075, 1 - 0.36 / height), borderaxespad=0, borderpad=0.2, frameon=False,
        ncols=across, fontsize=9,
    )  # fmt: skip
    figure.text(0.075, 0.07 / height, CAPTION, fontsize=6.5, color=FAINT)


def _panel(ax: "Axes", lines: list[list[Place]], cost: str) -> None:
    for number, places in enumerate(lines):
        if places:
            costs = [getattr(place, cost) for place in places]
            values, bars = [place.value for place in places], [place.sd for place in places]
            ax.errorbar(costs, values, bars, elinewidth=0.9, zorder=3 + number, **style(number))
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.06)
