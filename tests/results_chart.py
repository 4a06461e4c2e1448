"""Draws docs/results/masks/curves.png from the committed records: `python -m tests.results_chart`."""

import statistics

from mapnet_cli.core.plotting import Chart, axis, image
from mapnet_cli.report.charts import STEPS_AXIS, Rows, line_panel
from tests.test_results import MASKS, masks_by_kind

METHODS = (
    "bert", "uniform-30", "spaced-then-uniform", "mostly-spaced", "mostly-spaced-2833", "mapnet-kind", "bert-batch-2x",
)  # fmt: skip


def rows() -> Rows:
    """Returns mean and standard deviation of the held-out losses of each method and milestone over seeds."""
    found = Rows()
    for method in METHODS:
        for step, checkpoints in sorted(masks_by_kind(MASKS)["Checkpoint"][method].items()):
            losses = [checkpoint["validation"]["validation_loss_single"] for checkpoint in checkpoints]
            mean, sd = statistics.fmean(losses), statistics.stdev(losses) if len(losses) > 1 else 0.0
            cost = {"steps": step, "flops": checkpoints[0]["flops"]}
            found.append(
                {"Model": method, "what": "Held-out loss", "value": mean, "low": mean - sd, "high": mean + sd} | cost
            )
    return found


def main() -> None:
    panels = [line_panel("Held-out loss", METHODS, x) for x in (STEPS_AXIS, axis("flops", "FLOPs", format=".1~e"))]
    caption = "Points: mean of a milestone over seeds. Bands: ± one standard deviation over seeds."
    chart = Chart("curves", "Held-out loss, one mask per sentence (nats)", caption, panels, {"rows": rows()}, 2)
    (MASKS / "curves.png").write_bytes(image(chart, "", "png"))


if __name__ == "__main__":
    main()
