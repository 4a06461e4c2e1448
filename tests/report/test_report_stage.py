"""Report files: all formats, partial results, notes, and reproducible bytes."""

import csv
import io
import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from report_fixtures import Records, config
from rich.console import Console

from mapnet_cli.config import Config, Method, Report
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.plotting import images, style
from mapnet_cli.core.records import FinetuneRun
from mapnet_cli.core.tables import Cell, Table, plain, to_csv, to_json, to_markdown, to_rich
from mapnet_cli.glue.grid import TRAINED, grid_runs
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.report import figure2
from mapnet_cli.report.compare import compare
from mapnet_cli.report.figures import draw_curves, draw_figure3
from mapnet_cli.report.load import load_results
from mapnet_cli.report.scores import score
from mapnet_cli.report.stage import build, record_lines
from mapnet_cli.report.tables import cost_table, table3
from mapnet_cli.report.trajectories import CurvePoint

PROBE = "probe tasks, not GLUE"
SENTENCE = [
    ("[CLS]", 0.0, False),
    ("the", 0.05, False),
    ("computer", 0.3, True),
    ("&", 0.05, True),
    ("<i>x</i>", 0.1, True),
    ("computing", 0.5, True),
]


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


def rendered(table: Table, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(to_rich(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_files_are_written_with_the_signature(tmp_path: Path) -> None:
    records = full(tmp_path, config(recipe="demo", baselines=True))
    result = build(records.lineage)
    assert result.folder == tmp_path / "report/demo"
    assert sorted(path.name for path in result.folder.iterdir()) == sorted(result.files)
    expected = {"table3.md", "table3.csv", "table3.json", "tasks.csv", "figure3.png", "figure2.html", "report.md"}
    assert expected < set(result.files)
    assert "recipe:demo" in result.signature
    assert "|steps:4+10|pretrain-seeds:1|finetune-seeds:1+2|epoch:best|metrics:RTE=accuracy|" in result.signature
    assert result.signature.endswith("mapnet:0.1.0|torch:2.13.0|tokenizers:0.23.0|python:3.11.9")
    for name, path in result.files.items():
        assert result.signature.encode() in path.read_bytes(), name
    assert (result.missing, result.next_command) == ((), "")


def test_report_name_sets_the_folder(tmp_path: Path) -> None:
    records = full(tmp_path, config(recipe="demo"))
    named = records.config.model_copy(update={"report": Report(name="curves")})
    first, second = (build(Lineage(c, records.artifacts)) for c in (records.config, named))
    assert [built.folder.name for built in (first, second)] == ["demo", "curves"]
    assert first.signature == second.signature


def test_all_records_are_written(tmp_path: Path) -> None:
    records = full(tmp_path, config(recipe="demo", baselines=True))
    result = build(records.lineage)
    first, *rows = [json.loads(line) for line in result.files["records.jsonl"].read_text().splitlines()]
    assert first["signature"] == result.signature
    kinds = Counter(row.pop("record") for row in rows)
    assert kinds == {"CorpusManifest": 1, "Checkpoint": 4, "TaskFacts": 1, "Baseline": 2, "FinetuneRun": 8}
    keys = [records.lineage.finetuning(run).key for run in grid_runs(records.config)]
    assert rows[-8:] == [records.artifacts.read(key, FinetuneRun).to_json() for key in keys]


def test_records_contain_no_corpus_text(tmp_path: Path) -> None:
    """A report may be published where the text may not."""
    records = full(tmp_path, config(recipe="demo", baselines=True))
    results = load_results(records.lineage)
    assert results.manifest is not None
    manifest = results.manifest.model_copy(update={"examples": {"min_chars": ["How it begins"]}})
    lines = b"".join(record_lines(replace(results, manifest=manifest), "signature"))
    assert b'"record": "CorpusManifest"' in lines
    assert b"How it begins" not in lines


def test_probe_scores_are_labelled_in_every_output(tmp_path: Path) -> None:
    records = full(tmp_path, config())
    result = build(records.lineage)
    for name, path in result.files.items():
        if (
            path.suffix != ".png"
            and path.suffix != ".svg"
            and path.stem not in ("heldout", "health")  # no scores
            and path.name not in ("table1.csv", "table2.csv", "methods.csv")
        ):
            assert PROBE in path.read_text(encoding="utf-8"), name
    scored = [table for table in result.tables if table.name not in ("heldout", "health")]
    for table in scored:
        assert PROBE in rendered(table), table.name


def test_table_3_has_published_numbers_only_for_the_paper_recipe(tmp_path: Path) -> None:
    glue = tmp_path / "glue" / "RTE"
    glue.mkdir(parents=True)
    (glue / "train.tsv").write_text("x\n")
    paper = config(recipe="paper", data=str(tmp_path / "glue"))
    paper = paper.model_copy(update={"pretrain": paper.pretrain.model_copy(update={"steps": 1_000_000})})
    records = full(tmp_path / "artifacts", paper)
    table = build(records.lineage).table3
    assert table.columns == ("Model", "400k", "1000k", "Tokens", "FLOPs", "Hours")
    by_name = {row[0].text: [cell.text for cell in row[1:3]] for row in table.rows}
    assert by_name["BERT (paper)"] == ["80.86", "81.68"]
    assert by_name["MAP-Net (paper)"] == ["81.15", "81.88"]
    assert table.title == "Table 3: average score over 1 of 9 GLUE columns (subset: RTE)"
    assert PROBE not in rendered(table)
    assert "Subsets of the official GLUE data: RTE." in table.notes
    probe = full(tmp_path / "probe", config(recipe="demo"))
    assert len(build(probe.lineage).table3.rows) == 3  # two methods and their difference


def test_csv_and_json_have_unrounded_values(tmp_path: Path) -> None:
    records = full(tmp_path, config(baselines=True))
    result = build(records.lineage)
    rows = list(csv.DictReader(io.StringIO(result.files["tasks.csv"].read_text(encoding="utf-8"))))
    assert [row["Model"] for row in rows] == ["bert", "bert", "mapnet", "mapnet", "majority", "bag of words"]
    assert float(rows[1]["RTE mean"]) == pytest.approx(71.5)  # 0.6 + 0.01 * (10 + 1 or 2)
    assert (rows[1]["RTE n"], rows[1]["RTE failed"], rows[1]["RTE missing"]) == ("2", "0", "0")
    assert rows[1]["RTE setting"] == "seed 1: batch 16, lr 1e-05"
    assert float(rows[5]["RTE"]) == pytest.approx(62)
    loaded = json.loads(result.files["table3.json"].read_text(encoding="utf-8"))
    assert loaded["rows"][1]["10"]["mean"] == pytest.approx(72.5)
    assert loaded["rows"][2]["10"]["n"] == 2
    assert loaded["rows"][0]["Hours"] == pytest.approx(1.0)
    assert json.loads(json.dumps(result.to_json()))["tables"]["table3"] == loaded


def test_partial_report_lists_missing_and_failed_runs(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2")))
    records.manifest()
    records.run("bert", 10, 1, 0.7, 0.4, failure="loss is not finite")
    result = build(records.lineage)
    cells = [cell.text for cell in result.table3.rows[0]]
    assert cells[:3] == ["BERT", "-", "40.00*† (1 of 2 columns)"]
    text = result.files["report.md"].read_text(encoding="utf-8")
    assert "- 15 of 16 fine-tuning runs" in text
    assert "Next: `mapnet pretrain`" in text
    assert "Failed fine-tuning runs: 1 (loss is not finite)." in text
    assert "1 of 1 fine-tuning runs failed." in result.table3.notes


def test_empty_artifact_directory_gives_a_report_with_the_first_command(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    result = build(records.lineage)
    assert result.next_command == "mapnet prepare-corpus"
    assert {cell.text for row in result.table3.rows for cell in row[1:]} == {"-"}
    assert result.files["figure3.png"].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "No masks recorded yet for bert, mapnet" in result.files["figure2.html"].read_text(encoding="utf-8")


def test_stale_runs_are_reported(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    records.checkpoint("bert", 1, 10)
    records.run("bert", 10, 1, 0.7)
    records.run("bert", 10, 2, 0.7, checkpoint="other")
    notes = build(records.lineage).table3.notes
    assert any(note.startswith("1 fine-tuning runs started from weights other than") for note in notes)


def test_subsets_are_noted(tmp_path: Path) -> None:
    records = full(tmp_path, config(max_train_examples=300))
    result = build(records.lineage)
    assert "Fine-tuned on only the first 300 training rows of each task." in result.table3.notes
    assert "train-rows:first-300" in result.signature


def test_figures_have_the_same_bytes_in_two_builds(tmp_path: Path) -> None:
    records = full(tmp_path, config(tasks=("RTE", "SST-2"), baselines=True))
    files = build(records.lineage).files
    before = {name: path.read_bytes() for name, path in files.items()}
    after = build(records.lineage).files
    assert {name: path.read_bytes() for name, path in after.items()} == before
    assert before["figure3.png"].startswith(b"\x89PNG\r\n\x1a\n")
    assert before["figure3.svg"].startswith(b"<?xml")


def test_figure_2_escapes_text_draws_boxes_and_reports_a_collapse(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    for step in (4, 10):
        records.checkpoint("mapnet", 1, step)
        records.masks("mapnet", 1, step, [SENTENCE], collapsed=step == 10, proposal_entropy=0.25)
    results = load_results(records.lineage)
    page = figure2.figure2(results, score(results))
    assert "<i>" not in page
    assert "&lt;i&gt;x&lt;/i&gt;</b>" in page
    assert "&amp;</b>" in page
    assert "step 10" in page and "step 4 " not in page
    assert "This proposal has collapsed." in page and "0.25 nats against 3.00" in page
    for word in ("computer", "computing"):
        assert f'title="probability {0.3 if word == "computer" else 0.5}' in page
    assert page.count('class="box box0"') == 3  # two words and the legend
    assert "[CLS]" not in page
    assert "http" not in page


def test_only_masked_content_words_of_one_stem_are_boxed(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    records.checkpoint("bert", 1, 4)
    words = ["with", "with", "Runs", "running", "walk", "walked"]
    records.masks("bert", 1, 4, [[(word, 0.1, word != "walked") for word in words]])
    sentence = load_results(records.lineage).masks["bert", 1, 4].sentences[0]
    assert figure2.same_stem(sentence) == {2: 0, 3: 0}


def test_markdown_and_csv_escape_cells() -> None:
    cells = (Cell("a|b", "a|b"), Cell('say "x",\ny', {"mean": 1.5, "n": 2}), plain(None))
    table = Table("t", "T", ("one", "two", "three"), (cells, (plain(None),) * 3), (), "s|t")
    lines = to_markdown(table).splitlines()
    assert lines[4] == '| a\\|b | say "x", y | - |'
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows[0] == ["one", "two mean", "two n", "three", "title", "signature"]
    assert rows[1] == ["a|b", "1.5", "2", "", "T", "s|t"]
    assert rows[2] == ["", "", "", "", "T", "s|t"]
    assert to_json(table)["rows"][0]["two"] == {"mean": 1.5, "n": 2}


def test_difference_row_shows_its_interval(tmp_path: Path) -> None:
    records = full(tmp_path, config())
    results = load_results(records.lineage)
    scores = score(results)
    comparisons = compare(records.config, scores)
    table = table3(results, scores, comparisons)
    assert table.rows[2][2].text == "+1.00 [+1.00, +1.00]"
    assert "MAP-Net minus BERT (paired)" in rendered(table, 80)
    assert len(cost_table(results, scores, comparisons).rows) == 4


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
        "print(sorted({'torch', 'spacy', 'matplotlib.pyplot'} & set(sys.modules)))\n"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_milestones_that_are_not_fine_tuned_are_expected_and_shown(tmp_path: Path) -> None:
    records = Records(tmp_path, config(milestones=(0.4,)))
    for step in (4, 10):
        records.checkpoint("bert", 1, step)
    records.checkpoint("mapnet", 1, 4)
    records.masks("mapnet", 1, 4, [SENTENCE])
    for method in ("bert", "mapnet"):
        for seed in (1, 2):
            records.run(method, 4, seed, 0.6)
    records.manifest()
    records.task("RTE")
    built = build(records.lineage)
    assert built.table3.columns[:3] == ("Model", "4", "Tokens")
    assert (built.missing, built.next_command) == (("1 of 4 checkpoints (bert 0, mapnet 1)",), "mapnet pretrain")
    records.checkpoint("mapnet", 1, 10)
    records.masks("mapnet", 1, 10, [SENTENCE])
    built = build(records.lineage)
    assert built.missing == ()
    assert "MAP-Net, step 10 (" in built.files["figure2.html"].read_text(encoding="utf-8")


def test_line_styles_are_distinct() -> None:
    styles = [tuple(sorted(style(number).items())) for number in range(14)]
    assert len(set(styles)) == 14


@pytest.mark.parametrize("name", ["curves", "figure3"])
@pytest.mark.parametrize(("count", "tasks"), [(1, ("RTE",)), (9, ("RTE", "SST-2")), (16, TRAINED)])
@pytest.mark.parametrize("length", [4, 25, 150])
def test_figure_text_fits(name: str, count: int, tasks: tuple[str, ...], length: int, tmp_path: Path) -> None:
    """With up to 16 methods with long names and their own steps, no text is cut off or overlaps."""
    names = tuple(f"{n:0{length}}" for n in range(count))
    methods = {name: Method(steps=10) for name in names}
    of_all = config(baselines=True, tasks=tasks).model_copy(update={"methods": names, "method": methods})
    results = load_results(Lineage(of_all, Artifacts(tmp_path)))
    title = "A title that says on which of GLUE's tasks and on how many rows of each of them " * (1 + length // 50)
    points = [CurvePoint(10.0, 1e9, 1.0, 5e-6, 0.1)]

    def draw(figure: Figure) -> None:
        if name == "curves":
            draw_curves(figure, title, names, {"Average score": [points] * count, "Loss": [[] for _ in names]})
        else:
            draw_figure3(figure, title, results, score(results))
        for figure.dpi, canvas in ((150, FigureCanvasAgg), (72, FigureCanvasSVG)):
            canvas(figure)
            assert_nothing_is_cut_or_covered(figure)

    images(draw, title, "", ())


def assert_nothing_is_cut_or_covered(figure: Figure) -> None:
    figure.draw_without_rendering()
    [legend], [small] = figure.legends, figure.texts
    panels = [box for ax in figure.axes if ax.axison and (box := ax.get_tightbbox())]
    above, below = legend.get_window_extent(), small.get_window_extent()
    for box in (above, below, *panels):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert below.y1 <= min(box.y0 for box in panels)
    assert max(box.y1 for box in panels) <= above.y0
    assert not any(Bbox.intersection(*pair) for pair in itertools.combinations(panels, 2))
    assert all(ax.get_position().height * figure.get_figheight() > 1.2 for ax in figure.axes), "panels stay large"
