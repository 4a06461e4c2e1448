"""Shared style and rendering of all figures. The same data gives the same bytes."""

import io
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure

# Okabe and Ito's palette is colour-blind safe; markers and dashes distinguish lines in black-and-white print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
MARKERS = "osD^vP*"
INK = "#222222"
FAINT = "#767676"
PAD = 0.1
"""Padding between the parts of a figure, in inches."""
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
    """Returns the plot style of a line by its number: colour and marker, hollow and dashed once colours repeat."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    repeated = number >= len(COLOURS)
    fill = {"linestyle": "--", "markerfacecolor": "white"} if repeated else {"linestyle": "-"}
    return {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.6} | fill


def panels(
    figure: "Figure", rows: int, columns: int, inches: tuple[float, float], **options: Any
) -> "list[list[Axes]]":
    """Returns the rows of panels added to a figure; `inches` is the size of one panel with its labels."""
    figure.set_size_inches(columns * inches[0], rows * inches[1])
    figure.set_layout_engine("constrained", w_pad=PAD, h_pad=PAD)
    axes: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False, **options).tolist()
    for ax in itertools.chain.from_iterable(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return axes


def frame(
    figure: "Figure", title: str, handles: "Sequence[Artist | Container]", caption: str, signature: str = ""
) -> None:
    """Adds title and legend above the panels, caption and signature below them, and enlarges the figure to fit."""
    width, height = figure.get_size_inches()

    def inches(artist: "Artist") -> tuple[float, float]:
        box = artist.get_window_extent()
        return box.width / figure.dpi + 2 * PAD, box.height / figure.dpi + 2 * PAD

    for columns in range(max(1, len(handles)), 0, -1):
        legend = figure.legend(
            handles=handles, ncols=columns, loc="outside upper left", title=textwrap.fill(title, int(9 * width)),
            title_fontproperties={"size": 12, "weight": "bold"}, alignment="left", fontsize=9, frameon=False,
            borderpad=0, borderaxespad=PAD * 72 / 9,  # in units of the font size
        )  # fmt: skip
        across, head = inches(legend)
        if across <= width or columns == 1:
            break
        legend.remove()
    broken = textwrap.wrap(re.sub("([|,])", r"\1 ", signature), int(18 * width), break_on_hyphens=False)
    lines = [*textwrap.wrap(caption, int(18 * width)), *(re.sub("([|,]) ", r"\1", line) for line in broken)]
    small = figure.supxlabel("\n".join(lines), ha="left", fontsize=6.5, color=FAINT, linespacing=1.3)
    below, foot = inches(small)
    width = max(width, across, below)
    small.set_x(PAD / width)
    figure.set_size_inches(width, head + height + foot)


def images(draw: "Callable[[Figure], None]", title: str, description: str, kinds: tuple[str, ...]) -> dict[str, bytes]:
    """Returns {kind: image bytes} of the figure that `draw` draws; title and description are stored as metadata."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the bytes
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(dpi=150, facecolor="white")
        draw(figure)
        files = {}
        for kind in kinds:
            buffer = io.BytesIO()
            metadata = {"Title": title, "Description": description, **UNDATED[kind]}
            figure.savefig(buffer, format=kind, metadata=metadata)
            files[kind] = buffer.getvalue()
    return files
