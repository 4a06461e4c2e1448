"""Formatting of sizes, counts, durations and lists in messages, tables and figures."""

from collections.abc import Sequence


def format_size(count: float) -> str:
    """Returns a number of bytes as "1.2 GB", "3.4 MB" or "5.6 kB"."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / unit:,.1f} {name}"


def format_count(number: float) -> str:
    """Returns a large number as "1.2 million" or "3.4 thousand"."""
    unit, name = (1e6, "million") if number >= 1e6 else (1e3, "thousand")
    return f"{number / unit:,.1f} {name}"


def format_duration(seconds: float) -> str:
    """Returns a duration as "172,000 h", "1.5 h", "3 min 12 s" or "12 s"."""
    if (hours := seconds / 3600) >= 1:
        return f"{hours:.1f} h" if hours < 100 else f"{float(f'{hours:.3g}'):,.0f} h"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def few(names: Sequence[str], most: int = 3) -> str:
    """Returns the names, of many the first ones and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
