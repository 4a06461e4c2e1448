"""`mapnet status --watch` and `mapnet report --watch` until all work is done."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from mapnet_cli.cli import commands, results, watch
from mapnet_cli.cli.watch import sparkline
from mapnet_cli.config import Source
from mapnet_cli.core import Console
from mapnet_cli.lineage import Lineage
from tests.report.report_fixtures import Records, config


@pytest.mark.parametrize(
    ("values", "expected"), [([], ""), ([1.0], "▁"), ([3.0, 2.0, 1.0], "█▅▁"), ([5.0, 3.0, 1.0, 1.0], "█▁")]
)
def test_sparkline_has_at_most_its_width(values: list[float], expected: str) -> None:
    assert sparkline(values, 3 if len(values) < 4 else 2) == expected


def test_status_is_shown_until_all_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("Some text.")
    base = config(methods=("bert",))
    corpus = base.corpus.model_copy(update={"sources": (Source(path=str(tmp_path / "text")),)})
    lineage = Records(tmp_path / "art", base.model_copy(update={"corpus": corpus})).lineage
    log = lineage.artifacts.path(f"{lineage.pretraining('bert', 1).key}/log.jsonl")
    log.parent.mkdir(parents=True)
    line = {"tokens_per_second": 10.0, "mfu": 0.1, "step_seconds": 60.0}
    log.write_text("".join(json.dumps({"step": n, "loss": 9.0 - n, **line}) + "\n" for n in (1, 2, 3)))
    console = Console()
    console.out = RichConsole(file=io.StringIO(), width=100, force_terminal=True)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            monkeypatch.setattr(watch, "status", lambda lineage: [])

    monkeypatch.setattr(watch.time, "sleep", sleep)
    watch.watch(console, lambda: Lineage(lineage.config, lineage.artifacts), 0.5)
    assert isinstance(console.out.file, io.StringIO)
    shown = console.out.file.getvalue()
    assert looks == [0.5, 0.5]
    assert "bert seed 1   █▅▁ 6.000, 7 min 0 s left" in shown
    assert "finetune-glue" in shown


def test_report_is_rebuilt_until_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of a partial report reloads itself; that of a complete one doesn't."""
    from mapnet_cli.report.stage import build

    records = Records(tmp_path, config(methods=("bert",)))
    page = build(records.lineage, refresh=30).files["index.html"]
    assert '<meta http-equiv="refresh" content="30">' in page.read_text(encoding="utf-8")
    records.manifest()
    for step in (4, 10):
        records.checkpoint("bert", 1, step)
        for seed in (1, 2):
            records.run("bert", step, seed, 0.5)
    assert "http-equiv" not in build(records.lineage, refresh=30).files["index.html"].read_text(encoding="utf-8")[:2000]
    answers = iter(["mapnet pretrain", "mapnet finetune-glue", ""])
    monkeypatch.setattr(results, "_report", lambda invocation, refresh=0: next(answers))
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr(results, "advise", lambda invocation: None)
    from typer.testing import CliRunner

    done = CliRunner().invoke(commands.app, ["report", "--watch", "--every", "2", "--artifacts", str(tmp_path)])
    assert (done.exit_code, waited) == (0, [2.0, 2.0])
