"""Messages and progress on stderr: live bars on a terminal, plain lines elsewhere and in a log file.

Data goes to stdout, through `Console.data` and `Console.json`.
"""

import codecs
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from mapnet_cli.core.formatting import format_duration

FILE_WIDTH = 200  # line width on stdout, in characters, when it is not a terminal
PLAIN_INTERVAL = 10.0  # minimum number of seconds between two plain progress lines of one job
FEW_JOBS = 20  # number of jobs up to which each one of a phase shows a plain line when it begins
NOTE_WIDTH, SHORTEST_NAME = 58, 16  # columns of a terminal beside a job's name, and the least that a name gets


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


def job_name(key: str) -> str:
    """Returns a job's key without stage and fingerprints: "bert-seed1" of "pretrain/bert-seed1-0123abcd"."""
    return re.sub(r"-[0-9a-f]{8}(?=/|$)", "", key.partition("/")[2] or key)


class Console:
    """Messages and progress. `quiet` shows only warnings and errors, `verbose` every finished job and progress line.

    `as_json` reserves stdout for one JSON value. Messages and plain progress lines are appended to `log_file`, if any.
    """

    def __init__(
        self, quiet: bool = False, as_json: bool = False, verbose: bool = False, log_file: Path | None = None
    ) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.verbose = verbose
        self.log_file = log_file
        self.err = RichConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self.out = RichConsole(highlight=False, emoji=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._phase: tuple[str, str, int, int, float] = ("", "", 0, 0, 0.0)
        self._finished = 0
        self._notes: dict[str, str] = {}
        self._shown: dict[str, float] = {}

    def _log(self, text: str) -> None:
        if self.log_file:
            with suppress(OSError), self.log_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def note(self, text: str) -> None:
        self._log(text)
        if not self.quiet:
            self.err.print(text, markup=False)

    def warn(self, text: str) -> None:
        self._log(f"warning: {text}")
        self.err.print(f"warning: {text}", style="yellow", markup=False)

    def error(self, text: str) -> None:
        self._log(f"error: {text}")
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

    @contextmanager
    def phase(self, name: str, unit: str, total: int, done: int) -> Iterator[None]:
        """Shows the progress of a phase of `total` jobs, `done` of which have finished earlier."""
        self._phase, self._finished = (name, unit, total, done, time.monotonic()), 0
        earlier = f", {done} already done" if done else ""
        line = f"{name}: {total} {unit}{'s' if total != 1 else ''}{earlier}"
        if self.quiet or not self.err.is_terminal:
            self.note(line)
        else:
            self._log(line)
            columns = TextColumn("{task.description}"), BarColumn(8), TextColumn("{task.percentage:3.0f}%")
            self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.err)
            self._bars.start()
            self._tasks[""] = self._bars.add_task(name, total=total, completed=done, note=self._count())
        try:
            yield
        finally:
            if self._bars:
                self._bars.stop()
            self._bars = None
            self._tasks.clear()
            self._notes.clear()

    def _count(self) -> str:
        """Returns how many jobs of the phase are done and, once one finished in this run, the time left."""
        _, unit, total, done, start = self._phase
        rest = total - done - self._finished
        left = f", {format_duration(rest * (time.monotonic() - start) / self._finished)} left" if self._finished else ""
        return f"{total - rest}/{total} {unit}s{left if rest else ''}"

    def advance(self, job: str) -> None:
        """Counts a finished job of the phase, and shows its last note."""
        phase, _, total, done, _ = self._phase
        self._finished += 1
        result = re.match(r"[^,]*\d\.\d+", self._notes.pop(job, ""))  # a loss or a score
        line = f"{phase}: {self._count()}{f'; {job_name(job)}: {result[0]}' if result else ''}"
        if self._bars:
            self._bars.update(self._tasks[""], advance=1, note=self._count())
            if job in self._tasks:
                self._bars.remove_task(self._tasks.pop(job))
        self._line(line, self._due(phase) or done + self._finished == total)

    def progress(self, job: str, done: float, total: float, note: str) -> None:
        """Updates the progress of a job; `note` contains its rate and losses."""
        resumed, name = self._notes.get(job, "").startswith("from step"), job_name(job)
        self._notes[job] = note
        if self._phase[2] > FEW_JOBS:
            self._shown.setdefault(job, time.monotonic())
        if self._bars:
            if job not in self._tasks:
                room = max(SHORTEST_NAME, self.err.width - NOTE_WIDTH)
                short = name if len(name) <= room else f"…{name[1 - room :]}"
                self._tasks[job] = self._bars.add_task(short, total=total, note=note)
            self._bars.update(self._tasks[job], completed=int(done), note=note)
        self._line(f"  {name}: {done / total:4.0%} {note}", resumed or self._due(job))

    def _line(self, text: str, due: bool) -> None:
        """Writes a plain line of progress if it is due: to the log file, and to a stderr that shows no bars."""
        if self.verbose or (due and not self._bars):
            self.note(text)
        elif due:
            self._log(text)

    def _due(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._shown.get(key, -PLAIN_INTERVAL) < PLAIN_INTERVAL:
            return False
        self._shown[key] = now
        return True
