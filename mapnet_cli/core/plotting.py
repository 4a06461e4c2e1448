"""Charts as Vega-Lite specifications: their shared style, and rendering by vl-convert, which needs no network.

A page shows a chart's panels with the same specifications as its files. The same data gives the same bytes.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

Spec = dict[str, Any]  # a Vega-Lite specification or a part of it

# Okabe and Ito's palette is colour-blind safe; shapes and dashes distinguish lines in black-and-white print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#666666", "#882255", "#44AA99")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right", "cross")
ACROSS = 4  # maximum number of panels side by side
CONFIG: Spec = json.loads((files(__package__) / "templates/vega.json").read_text("utf-8"))
"""Style of all charts. The first font is part of vl-convert, so files have the same text everywhere."""


@dataclass(frozen=True)
class Chart:
    """Small multiples. `data` has the rows of each data set that the panels name."""

    name: str
    title: str
    caption: str
    panels: Sequence[Spec]
    data: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    columns: int = ACROSS

    def spec(self, subtitle: str = "") -> Spec:
        """Returns all panels as one specification of fixed size, at most ACROSS panels side by side."""
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "title": {"text": self.title, "subtitle": [*textwrap.wrap(self.caption, 55 * self.columns), subtitle]},
            "padding": 12,
            "background": "white",
            "datasets": {name: list(rows) for name, rows in self.data.items()},
            "columns": self.columns,
            "concat": [{"width": 210, "height": 150, **panel} for panel in self.panels],
            "config": CONFIG,
        }


def named_colours(names: Sequence[str], field: str) -> Spec:
    """Returns the encodings that give each of a field's values its own colour and shape."""

    def encoding(values: Sequence[str]) -> Spec:
        cycle = [values[number % len(values)] for number in range(len(names))]
        return {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": cycle}}

    return {"color": encoding(COLOURS), "shape": encoding(SHAPES)}


def axis(field: str, title: str, kind: str = "quantitative", zero: bool = False, **options: Any) -> Spec:
    """Returns the encoding of a position; options are those of the axis. `zero` starts a scale of numbers at 0."""
    scale = {"scale": {"zero": zero, "nice": True}} if kind == "quantitative" else {}
    return {"field": field, "type": kind, "title": title or None, "axis": {"tickCount": 5, **options}, **scale}


def image(chart: Chart, subtitle: str, kind: Literal["png", "svg"]) -> bytes:
    """Returns a chart as a PNG or SVG file."""
    import vl_convert

    spec = json.dumps(chart.spec(subtitle), ensure_ascii=False)
    if kind == "svg":
        return vl_convert.vegalite_to_svg(spec, vl_version="6.4").encode()
    return vl_convert.vegalite_to_png(spec, vl_version="6.4", scale=2.0)
