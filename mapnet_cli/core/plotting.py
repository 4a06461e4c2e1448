"""What all figures share: their looks, and bytes that are the same for the same data."""

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

# Okabe and Ito's colours, told apart by colour-blind readers too; markers and dashes for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
MARKERS = "osD^vP*"
INK = "#222222"
FAINT = "#767676"
PAD = 0.1
"""Inches between the parts of a figure."""
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


def panels(
    figure: "Figure", rows: int, columns: int, inches: tuple[float, float], **options: Any
) -> "list[list[Axes]]":
    """Gives a figure rows of panels, each of so many inches with its labels."""
    figure.set_size_inches(columns * inches[0], rows * inches[1])
    figure.set_layout_engine("constrained", w_pad=PAD, h_pad=PAD)
    found: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False, **options).tolist()
    for ax in itertools.chain.from_iterable(found):
        ax.spines[["top", "right"]].set_visible(False)
    return found


def frame(
    figure: "Figure", title: str, handles: "Sequence[Artist | Container]", caption: str, signature: str = ""
) -> None:
    """Makes a figure larger by title and legend above its panels, and by caption and signature below them."""
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
