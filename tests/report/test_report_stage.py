"""Report files: all formats, folders, partial and damaged results, flags, and reproducible bytes."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from report_fixtures import Records, config

from mapnet_cli.config import Config, Report
from mapnet_cli.core.records import FinetuneRun
from mapnet_cli.core.tables import Cell, Table, plain, table_of, to_json, to_markdown
from mapnet_cli.glue.grid import grid_runs
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.report import masks
from mapnet_cli.report.files import escape, record_lines
from mapnet_cli.report.labels import BELOW, CONSTANT, FAILED, MISSING, PROBE
from mapnet_cli.report.load import load_results
from mapnet_cli.report.stage import ReportResult, build
from mapnet_cli.report.tables import protocol

SENTENCE = [
    ("[CLS]", 0.0, False), ("the", 0.05, False), ("computer", 0.3, True), ("&", 0.05, True), ("<i>x</i>", 0.1, True),
    ("computing", 0.5, True),
]  # fmt: skip


def full(tmp_path: Path, config: Config) -> Records:
    """Writes all records of the config."""
    records = Records(tmp_path, config)
    records.manifest()
    for task in config.finetune.tasks:
        records.task(task)
        if config.finetune.baselines:
            records.baseline(task, majority={"accuracy": 0.5}, bag_of_words={"accuracy": 0.62})
    for shift, method in enumerate(config.methods):
        for step in config.pretrain.milestone_steps():
            records.checkpoint(method, 1, step)
            records.masks(method, 1, step, [SENTENCE])
            for task in config.finetune.tasks:
                for seed in config.finetune.seeds:
                    records.run(method, step, seed, 0.6 + 0.01 * (step + seed + shift), task=task)
    return records


def page_of(result: ReportResult) -> str:
    """Returns the page without the plotting library."""
    text = result.files["index.html"].read_text(encoding="utf-8")
    begin, end = text.index("<script>") + 8, text.index('<script type="application/json"')
    return text[:begin] + text[end:]


def table3(result: ReportResult) -> dict[tuple[str, object], dict[str, Cell]]:
    """Returns the cells of Table 3 by model and step."""
    table = result.tables["table3"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {(str(row["Model"].data), row["Steps"].data): row for row in rows}


def test_all_files_are_written_with_a_signature(tmp_path: Path) -> None:
    records = full(tmp_path, config(recipe="demo", baselines=True, tasks=("RTE", "SST-2")))
    result = build(records.lineage)
    assert result.folder == tmp_path / "report/demo"
    assert sorted(path.name for path in result.folder.iterdir()) == sorted(result.files)
    assert set(result.files) == {
        "index.html", "report.md", "results.json", "results.csv", "records.jsonl", "table3.tex", "figure3.png",
        "figure3.svg", "curves.png", "curves.svg",
    }  # fmt: skip
    signed = result.value["signature"]
    assert "|steps:4+10|pretrain-seeds:1|finetune-seeds:1+2|epoch:best|metrics:RTE=accuracy+SST-2=accuracy|" in signed
    assert signed.endswith("mapnet:0.1.0|torch:2.13.0|tokenizers:0.23.0|python:3.11.9")
    short = result.value["short_signature"]
    assert short == f"mapnet|demo|{result.value['fingerprint'][:8]}|2x1|v0.1.0"
    for name in ("index.html", "report.md", "results.json", "records.jsonl", "table3.tex"):
        assert signed in result.files[name].read_text(encoding="utf-8"), name
    assert short in result.files["figure3.svg"].read_text(encoding="utf-8")
    assert page_of(result).count(short) >= len([t for t in result.tables.values() if t.rows])
    assert (result.value["missing"], result.next_command) == ({}, "")


def test_page_needs_nothing_else_and_says_what_the_scores_are_of(tmp_path: Path) -> None:
    result = build(full(tmp_path, config(recipe="demo", baselines=True)).lineage)
    page = page_of(result)
    assert result.files["index.html"].stat().st_size < 3_000_000
    assert not any(f'{attribute}="http' in page or f'{attribute}="//' in page for attribute in ("src", "href"))
    assert "Does pretraining with MAP-Net give a better encoder than BERT, and at what cost?" in page
    for name in ("index.html", "report.md", "table3.tex"):
        assert PROBE in result.files[name].read_text(encoding="utf-8"), name
    assert "isn't comparable: probe tasks instead of GLUE; 10 steps instead of 1,000,000" in page.replace("&#39;", "'")


def test_folder_is_named_after_the_report_the_config_file_or_the_recipe_and_kept(tmp_path: Path) -> None:
    records = full(tmp_path, config(recipe="demo"))
    named = records.config.model_copy(update={"report": Report(name="curves")})
    other = config(recipe="demo", max_train_examples=5)
    built = [
        build(records.lineage), build(records.lineage, "mine"), build(Lineage(named, records.artifacts), "mine"),
        build(Lineage(other, records.artifacts)), build(records.lineage),
    ]  # fmt: skip
    names = [one.folder.name for one in built]
    assert names == ["demo", "mine", "curves", f"demo-{built[3].value['fingerprint'][:8]}", "demo"]
    assert (tmp_path / "report/latest").resolve() == tmp_path / "report/demo"
    shutil.rmtree(tmp_path / "report/demo")
    (tmp_path / "report/demo").mkdir()
    (tmp_path / "report/demo/table3.md").write_text("of an older version")
    assert build(records.lineage).folder.name.startswith("demo-")


def test_all_records_are_written(tmp_path: Path) -> None:
    records = full(tmp_path, config(recipe="demo", baselines=True))
    result = build(records.lineage)
    first, *rows = [json.loads(line) for line in result.files["records.jsonl"].read_text().splitlines()]
    assert first["signature"] == result.value["signature"]
    kinds = Counter(row.pop("record") for row in rows)
    assert kinds == {"CorpusManifest": 1, "Checkpoint": 4, "TaskFacts": 1, "Baseline": 2, "FinetuneRun": 8}
    keys = [records.lineage.finetuning(run).key for run in grid_runs(records.config)]
    assert rows[-8:] == [records.artifacts.read(key, FinetuneRun).to_json() for key in keys]


def test_records_contain_no_corpus_text(tmp_path: Path) -> None:
    """A report may be published where the text may not."""
    results = load_results(full(tmp_path, config(recipe="demo", baselines=True)).lineage)
    assert results.manifest is not None
    manifest = results.manifest.model_copy(update={"examples": {"min_chars": ["How it begins"]}})
    lines = b"".join(record_lines(replace(results, manifest=manifest), "signature"))
    assert b'"record": "CorpusManifest"' in lines
    assert b"How it begins" not in lines


def test_results_have_one_row_per_method_seed_step_task_and_metric(tmp_path: Path) -> None:
    result = build(full(tmp_path, config(baselines=True)).lineage)
    rows = list(csv.DictReader(io.StringIO(result.files["results.csv"].read_text(encoding="utf-8"))))
    loaded = json.loads(result.files["results.json"].read_text(encoding="utf-8"))
    assert len(rows) == len(loaded["rows"]) == len({tuple(row.values())[:5] for row in rows})
    [row] = [r for r in loaded["rows"] if (r["method"], r["step"], r["task"]) == ("mapnet", 10, "RTE")]
    assert (row["metric"], row["value"], row["n"]) == ("accuracy", pytest.approx(72.5), 2)
    assert row["standard_error"] == pytest.approx(0.5)  # 72 and 73
    assert [r["value"] for r in loaded["rows"] if (r["method"], r["task"]) == ("bag of words", "RTE")] == [62.0]
    [tokens] = [r for r in rows if (r["method"], r["step"], r["metric"]) == ("bert", "10", "tokens")]
    assert float(tokens["value"]) == 10_000
    assert loaded == json.loads(json.dumps(result.value))


def test_best_score_of_the_last_checkpoints_is_bold(tmp_path: Path) -> None:
    result = build(full(tmp_path, config(baselines=True, tasks=("RTE", "SST-2"), untrained=True)).lineage)
    bold = {(model, step, title) for (model, step), row in table3(result).items() for title in row if row[title].best}
    assert bold == {("mapnet", 10, title) for title in ("RTE", "SST-2", "Average")}
    assert "**72.50 ± 0.71**" in result.files["report.md"].read_text(encoding="utf-8")
    assert r"\textbf{72.50} {\small$\pm$0.71}" in result.files["table3.tex"].read_text(encoding="utf-8")


def test_runs_of_one_class_and_encoders_below_the_bag_of_words_are_flagged(tmp_path: Path) -> None:
    records = Records(tmp_path, config(methods=("bert",), baselines=True, tasks=("RTE", "SST-2")))
    for task in ("RTE", "SST-2"):
        records.baseline(task, majority={"accuracy": 0.5}, bag_of_words={"accuracy": 0.62})
        for step in (4, 10):
            records.run("bert", step, 1, {"accuracy": 0.55, "f1": 2 * 0.55 / 1.55, "mcc": 0.0}, task=task)
            records.run("bert", step, 2, 0.61 if task == "RTE" else 0.9, task=task)
    result = build(records.lineage)
    cells = table3(result)["bert", 10]
    assert cells["RTE"].text == f"58.00 ± 4.24{CONSTANT}{BELOW}"
    assert cells["SST-2"].text == f"72.50 ± 24.75{CONSTANT}"
    assert result.warnings[0] == "RTE: no encoder is above the bag of words (62.0), so this column compares little."
    assert "RTE: runs that predict one class for all examples: BERT at 4 steps (1 of 2)" in result.warnings[1]
    runs = [(row["Run"], row["What"]) for row in to_json(result.tables["runs"])["rows"]]
    assert ("RTE, batch 16, lr 1e-05, seed 1", "one class") in runs


def test_partial_report_names_what_is_missing_failed_and_damaged(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2")))
    records.manifest()
    records.run("bert", 10, 1, 0.7, 0.4, failure="loss is not finite")
    records.run("bert", 10, 2, 0.7)
    path = records.artifacts.path(records.lineage.finetuning(list(grid_runs(records.config))[5]).key + ".json")
    path.write_bytes(path.read_bytes()[:-30])
    result = build(records.lineage)
    row = table3(result)["bert", 10]
    assert row["RTE"].text == f"40.00{MISSING}{FAILED}"
    assert "Average" not in row
    text = page_of(result)
    assert "15 of 16 fine-tuning runs" in text
    assert "Next: <code>mapnet pretrain</code>" in text
    assert any("1 of 1 fine-tuning runs failed (loss is not finite, 1)" in line for line in result.warnings)
    assert any(line.startswith("1 damaged records are left out: ") and path.name in line for line in result.warnings)
    runs = to_json(result.tables["runs"])["rows"]
    assert {"Encoder": "BERT, seed 1, step 10", "Run": "RTE", "What": "missing: 1 of 2 runs"} in runs
    assert {"Encoder": "MAP-Net, seed 1, step 4", "Run": "pretraining", "What": "missing checkpoint"} in runs


def test_empty_artifact_directory_gives_a_report_with_the_first_command(tmp_path: Path) -> None:
    result = build(Records(tmp_path, config()).lineage)
    assert result.next_command == "mapnet prepare-corpus"
    assert result.tables["table3"].columns == ("Model", "Steps")
    assert "figure3.png" not in result.files


def test_without_tasks_there_are_losses_and_no_scores(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=()))
    records.manifest()
    for method, loss in (("bert", 5.0), ("mapnet", 5.5)):
        for step in (4, 10):
            records.checkpoint(method, 1, step, validation={"validation_loss_single": loss})
    built = build(records.lineage)
    assert built.value["missing"] == {}
    assert built.summary[0] == "Held-out loss minus BERT's, in nats, lowest first: MAP-Net +0.500."
    assert built.summary[1].endswith("; it doesn't reach BERT's final loss.")
    table = built.tables["table3"]
    assert table.columns == ("Model", "Steps", "Held-out loss", "FLOPs (× BERT)", "Time (min)")
    assert [row[0].text for row in table.rows] == ["BERT", "BERT", "MAP-Net", "MAP-Net"]
    assert "table3.tex" not in built.files
    assert "table3.tex" not in page_of(built)
    assert protocol(load_results(records.lineage)).startswith("no fine-tuning; ")
    assert not any("A score is" in note or "Differences are paired" in note for note in built.notes)


def test_stale_runs_and_subsets_are_reported(tmp_path: Path) -> None:
    records = Records(tmp_path, config(max_train_examples=300))
    records.checkpoint("bert", 1, 10)
    records.run("bert", 10, 1, 0.7)
    records.run("bert", 10, 2, 0.7, checkpoint="other")
    result = build(records.lineage)
    assert any(note.startswith("1 fine-tuning runs started from weights other than") for note in result.notes)
    assert "Fine-tuned on only the first 300 training rows of each task." in result.notes
    assert "train-rows:first-300" in result.value["signature"]


def test_files_have_the_same_bytes_in_two_builds(tmp_path: Path) -> None:
    records = full(tmp_path, config(tasks=("RTE", "SST-2"), baselines=True))
    before = {name: path.read_bytes() for name, path in build(records.lineage).files.items()}
    after = build(records.lineage).files
    assert {name: path.read_bytes() for name, path in after.items()} == before
    assert before["figure3.png"].startswith(b"\x89PNG\r\n\x1a\n")
    assert before["figure3.svg"].startswith(b"<svg")


def test_figure_2_escapes_text_draws_boxes_and_reports_a_collapse(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    rates = {"kind": {"function": [1, 10], "content": [3, 10]}}
    for step in (4, 10):
        records.checkpoint("mapnet", 1, step)
        records.masks("mapnet", 1, step, [SENTENCE], collapsed=step == 10, rates=rates)
    records.checkpoint("bert", 1, 10)
    records.masks("bert", 1, 10, [SENTENCE])
    text = page_of(build(records.lineage))
    assert "<i>x" not in text and "&lt;i&gt;x&lt;/i&gt;</b>" in text and "&amp;</b>" in text
    assert text.index("MAP-Net, seed 1, step 10</h3>") < text.index("BERT, seed 1, step 10</h3>"), "learned ones first"
    assert "MAP-Net, seed 1, step 4" not in text[text.index('id="masking"') : text.index('id="runs"')]
    assert "This proposal has collapsed" in text and "Entropy 2.00 nats, of uniform masks 3.00" in text
    assert text.count("box box0") == 5  # two words of each method, and the legend
    assert "[CLS]" not in text
    points = masks.rate_points(load_results(records.lineage))
    assert {row["group"]: row["value"] for row in points} == {"function": 0.1, "content": 0.3}


def test_only_masked_content_words_of_one_stem_are_boxed(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    records.checkpoint("bert", 1, 4)
    words = ["with", "with", "Runs", "running", "walk", "walked"]
    records.masks("bert", 1, 4, [[(word, 0.1, word != "walked") for word in words]])
    sentence = load_results(records.lineage).masks["bert", 1, 4].sentences[0]
    assert masks.same_stem(sentence) == {2: 0, 3: 0}


def test_text_is_escaped_for_latex_and_markdown() -> None:
    assert escape(r"50% of a_b & \x ± 1") == r"50\% of a\_b \& \textbackslash{}x $\pm$ 1"
    cells = (Cell("a|b", "a|b", True), Cell('say "x",\ny', {"mean": 1.5, "n": 2}), plain(None))
    table = Table("t", "T", ("one", "two", "three"), (cells, (plain(None),) * 3), (), "s|t")
    assert to_markdown(table).splitlines()[4] == '| **a\\|b** | say "x", y | - |'
    assert to_json(table)["rows"][0]["two"] == {"mean": 1.5, "n": 2}
    ragged = table_of("t", "T", ({"a": 1}, {"b": Cell("x")}), (), "s")
    assert [[cell.text for cell in row] for row in ragged.rows] == [["1", "-"], ["-", "x"]]


# LaTeX is hundreds of megabytes of system packages. Without it, the tests above check escapes and rows of table3.tex.
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX isn't installed (texlive-latex-recommended)")
def test_table_3_compiles_in_a_paper(tmp_path: Path) -> None:
    built = build(full(tmp_path, config(baselines=True, tasks=("RTE", "SST-2"), max_train_examples=9)).lineage)
    shutil.copy(built.files["table3.tex"], tmp_path)
    paper = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table3}\\end{document}"
    (tmp_path / "paper.tex").write_text(paper)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_report_imports_neither_torch_nor_spacy(tmp_path: Path) -> None:
    full(tmp_path, config())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from report_fixtures import config\n"
        "from mapnet_cli.core.artifacts import Artifacts\n"
        "from mapnet_cli.lineage.graph import Lineage\n"
        "from mapnet_cli.report.stage import build\n"
        "build(Lineage(config(), Artifacts(Path(sys.argv[2]))))\n"
        "print(sorted({'torch', 'spacy'} & set(sys.modules)))\n"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_milestones_that_are_not_fine_tuned_are_expected_and_shown(tmp_path: Path) -> None:
    records = Records(tmp_path, config(milestones=(0.4,)))
    for method, step in (("bert", 4), ("bert", 10), ("mapnet", 4)):
        records.checkpoint(method, 1, step)
        records.masks(method, 1, step, [SENTENCE])
    for method in ("bert", "mapnet"):
        for seed in (1, 2):
            records.run(method, 4, seed, 0.6)
    records.manifest()
    records.task("RTE")
    built = build(records.lineage)
    assert list(table3(built)) == [("bert", 4), ("mapnet", 4)]
    assert built.value["missing"] == {"1 of 4 checkpoints (bert 0, mapnet 1)": "mapnet pretrain"}
    records.checkpoint("mapnet", 1, 10)
    records.masks("mapnet", 1, 10, [SENTENCE])
    built = build(records.lineage)
    assert built.value["missing"] == {}
    assert "MAP-Net, seed 1, step 10</h3>" in page_of(built)
