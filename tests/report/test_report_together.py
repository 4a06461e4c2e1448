"""`mapnet report --compare`: several reports on one page, and what can't be compared."""

from pathlib import Path
from typing import Any

import pytest
from report_fixtures import Records, config

from mapnet_cli.core.errors import UsageError
from mapnet_cli.core.tables import to_json
from mapnet_cli.report.stage import build
from mapnet_cli.report.together import compare


def reported(folder: Path, value: float, device: str = "cpu", **settings: Any) -> Path:
    """Writes a report of one method with two tasks and returns its artifact directory."""
    records = Records(folder, config(methods=("bert",), recipe="demo", tasks=("RTE", "SST-2"), **settings))
    for task in ("RTE", "SST-2"):
        records.task(task, dev_examples=50 if (task, device) == ("SST-2", "gpu") else 100)
        for step in (4, 10):
            for seed in (1, 2):
                records.run("bert", step, seed, value + 0.01 * step, task=task)
    for step in (4, 10):
        records.checkpoint("bert", 1, step, device=device, validation={"validation_loss_single": 5.0})
    build(records.lineage)
    return folder


def test_reports_are_side_by_side(tmp_path: Path) -> None:
    folders = [reported(tmp_path / "one", 0.5), reported(tmp_path / "two", 0.6, pretrain_seeds=(1,))]
    table, refused, page = compare(folders, tmp_path / "both")
    assert refused == []
    rows = {row["Model"]: row for row in to_json(table)["rows"]}
    assert list(rows) == ["BERT (one/demo)", "BERT (two/demo)"]
    assert rows["BERT (two/demo)"]["Average"]["mean"] == pytest.approx(70)
    assert rows["BERT (two/demo)"]["Steps"] == 10
    assert rows["BERT (one/demo)"]["Held-out loss"]["mean"] == 5.0
    assert {"FLOPs", "Seconds"} <= set(table.columns)
    text = page.read_text(encoding="utf-8")
    assert "How do the encoders of 2 reports compare?" in text and 'id="chart-comparison"' in text
    direct = compare([folder / "report/latest" for folder in folders], tmp_path / "direct")[0]
    assert len(direct.rows) == 2


def test_what_cannot_be_compared_is_left_out_with_the_reason(tmp_path: Path) -> None:
    first, other = reported(tmp_path / "one", 0.5), reported(tmp_path / "two", 0.6, device="gpu")
    table, refused, _ = compare([first, other], tmp_path / "both")
    assert "RTE" in table.columns and not {"SST-2", "Seconds"} & set(table.columns)
    assert refused == [
        "SST-2 is left out: other metric, data or no runs in two/demo.",
        "Times are left out: the devices differ.",
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"epoch": "last"}, "epoch that counts 'last' instead of 'best'"),
        ({"max_train_examples": 10}, "maximum number of training rows 10 instead of 0"),
    ],
)
def test_other_protocols_are_refused(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folders = [reported(tmp_path / "one", 0.5), reported(tmp_path / "two", 0.6, **settings)]
    with pytest.raises(UsageError, match=f"nothing can be compared with one/demo: two/demo isn't compared: {reason}"):
        compare(folders, tmp_path / "both")
    third = reported(tmp_path / "three", 0.7)
    table, refused, _ = compare([*folders, third], tmp_path / "all")
    assert len(table.rows) == 2 and refused[0] == f"two/demo isn't compared: {reason}."


def test_folder_without_a_report_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no report .* run `mapnet report` there first"):
        compare([tmp_path, tmp_path], tmp_path / "both")
    with pytest.raises(UsageError, match="at least two"):
        compare([reported(tmp_path / "one", 0.5)], tmp_path / "both")
