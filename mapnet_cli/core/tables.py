"""Tables, with one renderer per format, and HTML pages from Jinja2 templates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

Scalar = str | int | float | None
NONE = "-"  # a cell without a value


@dataclass(frozen=True)
class Cell:
    """A table cell. `text` is displayed; `data` is the unrounded value, or several values by name."""

    text: str
    data: Scalar | Mapping[str, Scalar] = None
    best: bool = False  # whether it is the best of its column, shown in bold

    @property
    def value(self) -> Scalar:
        """The unrounded value by which rows are sorted, of several the first one."""
        return next(iter(self.data.values()), None) if isinstance(self.data, Mapping) else self.data


def plain(value: Scalar) -> Cell:
    """Returns a cell that shows its value unformatted, None as "-"."""
    return Cell(NONE if value is None else str(value), value)


def number_cell(value: float | None, form: str) -> Cell:
    """Returns a cell that shows a number in a format such as "{:.2f}", None as "-"."""
    return plain(None) if value is None else Cell(form.format(value), value)


@dataclass(frozen=True)
class Table:
    """A table with its provenance. `name` is the stem of its files."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]
    signature: str


def table_of(name: str, title: str, rows: Iterable[Mapping[str, Any]], notes: Iterable[str], signature: str) -> Table:
    """Returns a table of rows that map column titles to cells or plain values; what a row lacks is shown as "-".

    A column without any value is left out.
    """
    rows = [{key: cell if isinstance(cell, Cell) else plain(cell) for key, cell in row.items()} for row in rows]
    filled = {key for row in rows for key, cell in row.items() if cell.text != NONE}
    columns = tuple(key for key in dict.fromkeys(key for row in rows for key in row) if key in filled)
    cells = (tuple(row.get(column, plain(None)) for column in columns) for row in rows)
    return Table(name, title, columns, tuple(cells), tuple(notes), signature)


def to_rich(table: Table, notes: bool = True, most: int | None = None) -> Group:
    """Returns the first `most` columns of the table for a terminal, with or without notes and signature below it."""
    shown = RichTable(title=Text(table.title, style="bold"), title_justify="left", header_style="bold")
    for number, column in enumerate(table.columns[:most]):
        longest = max(map(len, column.split()), default=1)
        first = number == 0
        shown.add_column(Text(column), justify="left" if first else "right", no_wrap=first, min_width=longest)
    for row in table.rows:
        shown.add_row(*(Text(cell.text) for cell in row[:most]))
    below = [Text(note, style="dim") for note in (*table.notes, table.signature)]
    return Group(shown, *below) if notes else Group(shown)


def to_markdown(table: Table, level: int = 1) -> str:
    """Returns the table as Markdown: a heading of the given level, the table, its notes and its signature."""
    lines = [f"{'#' * level} {_escape(table.title)}", "", _markdown_row(table.columns)]
    lines.append("|" + "|".join(" --- " if n == 0 else " ---: " for n in range(len(table.columns))) + "|")
    lines += [_markdown_row([cell.text for cell in row], [cell.best for cell in row]) for row in table.rows]
    lines += [""] + [f"- {_escape(note)}" for note in table.notes] + [""] * bool(table.notes)
    lines += [f"Signature: `{table.signature}`", ""]
    return "\n".join(lines)


def to_json(table: Table) -> dict[str, Any]:
    """Returns the table's fields, with rows that map column titles to values."""
    rows = [
        {
            column: dict(cell.data) if isinstance(cell.data, Mapping) else cell.data
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]
    return vars(table) | {"rows": rows}


def _markdown_row(texts: Sequence[str], bold: Sequence[bool] = ()) -> str:
    shown = (f"**{_escape(text)}**" if best else _escape(text) for text, best in zip_longest(texts, bold))
    return "| " + " | ".join(shown) + " |"


def _escape(text: str) -> str:
    for mark in ("\\", "|", "*", "_", "<", "`"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def render(package: str, template: str, **values: Any) -> str:
    """Returns the rendered template; values are escaped in .html files, and an undefined variable raises an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
