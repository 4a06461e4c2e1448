"""What all figures share: their looks, and bytes that are the same for the same data."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too; markers and dashes for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
MARKERS = "osD^vP*"
INK = "#222222"
FAINT = "#767676"
SETTINGS: Any = {
    "svg.hashsalt": "mapnet",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
UNDATED: Mapping[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def style(number: int) -> dict[str, Any]:
    """Returns the looks of a figure's line of that number: a colour and a marker, hollow and dashed the second time."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    again = number >= len(COLOURS)
    fill = {"linestyle": "--", "markerfacecolor": "white"} if again else {"linestyle": "-"}
    return {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.6} | fill


def legend_shape(names: Sequence[str], inches: float) -> tuple[int, int]:
    """Returns in how many columns and rows a legend's entries of 9 points fit into a width."""
    longest = max(map(len, names), default=0)
    columns = max(1, int(inches / (0.55 + 0.085 * longest)))  # a line's sample and its name
    return columns, math.ceil(len(names) / columns)


def images(draw: "Callable[[Figure], None]", title: str, description: str, kinds: tuple[str, ...]) -> dict[str, bytes]:
    """Returns what `draw` puts on a figure, as "png" and "svg" files; title and description go into their metadata."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not change the bytes
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(dpi=150, facecolor="white")
        draw(figure)
        found = {}
        for kind in kinds:
            buffer = io.BytesIO()
            metadata = {"Title": title, "Description": description, **UNDATED[kind]}
            figure.savefig(buffer, format=kind, metadata=metadata)
            found[kind] = buffer.getvalue()
    return found
