"""Messages and progress on stderr: live bars on a terminal, plain lines elsewhere.

Data goes to stdout, through `Console.data` and `Console.json`.
"""

import codecs
import io
import json
import sys
import time
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

FILE_WIDTH = 200
"""Line width on stdout, in characters, when it is not a terminal."""
PLAIN_INTERVAL = 10.0
"""Minimum number of seconds between two plain progress lines of one job."""


_ASCII = str.maketrans({
    "×": "x", "±": "+/-", "−": "-", "–": "-", "—": "-", "…": "...", "’": "'", "“": '"', "”": '"', "≤": "<=", "≥": ">=",
    "→": "->", "·": ".", "°": "*", "†": "+", "‡": "++", "§": "#", "•": "*", "█": "#", "Δ": "d", "σ": "s", "‖": "|",
})  # fmt: skip


def spell_out(*streams: TextIO) -> None:
    """Makes streams write characters that their encoding lacks as similar ones, or as \\u escapes."""

    def replaced(error: UnicodeError) -> tuple[str | bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = error.object[error.start : error.end].translate(_ASCII)
        return text.encode("ascii", "backslashreplace").decode(), error.end

    codecs.register_error("spell-out", replaced)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spell-out")


class Console:
    """Messages and progress. `quiet` shows only warnings and errors; `as_json` reserves stdout for one JSON value."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.err = RichConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self.out = RichConsole(highlight=False, emoji=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._phase: tuple[str, str, int, int, float] = ("", "", 0, 0, 0.0)
        self._last_shown: dict[str, float] = {}

    def note(self, text: str) -> None:
        if not self.quiet:
            self.err.print(text, markup=False)

    def warn(self, text: str) -> None:
        self.err.print(f"warning: {text}", style="yellow", markup=False)

    def error(self, text: str) -> None:
        self.err.print(f"error: {text}", style="red", markup=False)

    def data(self, renderable: Any) -> None:
        """Prints a rich renderable or a string to stdout."""
        self.out.print(renderable, markup=False, soft_wrap=isinstance(renderable, str))

    def result(self, value: Any, *renderables: Any) -> None:
        """Prints a command's result to stdout: `value` as JSON, or else what people read."""
        if self.as_json:
            self.json(value)
        for renderable in () if self.as_json else renderables:
            self.data(renderable)

    def json(self, value: Any) -> None:
        utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
        sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=not utf8) + "\n")

    def begin(self, phase: str, unit: str, total: int, done: int) -> None:
        """Starts a phase of `total` jobs, `done` of which have finished earlier."""
        self._phase = (phase, unit, total, done, time.monotonic())
        if self.quiet:
            return
        if self.err.is_terminal:
            columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.err)
            self._bars.start()
            self._tasks[""] = self._bars.add_task(phase, total=total, completed=done, note=f"{unit}s")
        else:
            earlier = f", {done} already done" if done else ""
            self.note(f"{phase}: {total} {unit}{'s' if total != 1 else ''}{earlier}")

    def advance(self, job: str) -> None:
        """Counts a finished job of the phase."""
        phase, unit, total, done, start = self._phase
        self._phase = (phase, unit, total, done + 1, start)
        if self._bars:
            self._bars.advance(self._tasks[""])
            if job in self._tasks:
                self._bars.remove_task(self._tasks.pop(job))
        elif self._due(phase) or done + 1 == total:
            self.note(f"{phase}: {done + 1}/{total} {unit}s")

    def progress(self, job: str, done: float, total: float, note: str) -> None:
        """Updates the progress of a job; `note` contains its rate and losses."""
        if self._bars:
            if job not in self._tasks:
                self._tasks[job] = self._bars.add_task(job, total=total, note=note)
            self._bars.update(self._tasks[job], completed=int(done), note=note)
        elif self._due(job):
            self.note(f"  {job}: {done / total:4.0%} {note}")

    def end(self) -> None:
        """Ends the phase, whether it succeeded or failed."""
        if self._bars:
            self._bars.stop()
        self._bars = None
        self._tasks.clear()

    def _due(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._last_shown.get(key, -PLAIN_INTERVAL) < PLAIN_INTERVAL:
            return False
        self._last_shown[key] = now
        return True
