"""The numbers in docs/results and the README match those computed from the committed records.

So do those of a report that is made anew from the records of the first study. To make a study's report, or to print the
rows of docs/results/README.md:

    python -m tests.test_results /tmp/small /tmp/masks
    python -m tests.test_results
"""

import gzip
import json
import math
import re
import statistics
import sys
from collections import defaultdict
from dataclasses import fields
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.statistics import t_interval
from mapnet_cli.glue.grid import GridRun, other_rows
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.report.stage import ReportResult, build

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "docs" / "results" / "small"
MASKS = SMALL.with_name("masks")
LONG = SMALL.with_name("long")
"""The same methods four times as long."""
LOSSES = ("validation_loss_refit", "validation_loss_single")
Rows = dict[Any, list[dict[str, Any]]]
CONFIG = resolve(None, SMALL.with_suffix(".toml"), (), {}).config
METHODS = (*CONFIG.methods, *other_rows(CONFIG))
METRICS = {"CoLA": "mcc", "STS-B": "pearson"}
ROW = re.compile(r"\| `[\w-]+`( - `[\w-]+`)? \| \d")
SUMMARY = "| Model | Pretraining runs | Score |"
"""Beginning of the header of the summary; of reports since version 0.2: "| Model | Steps | Average |"."""
LABELS = {"bert": "BERT", "mapnet": "MAP-Net", "electra": "ELECTRA"}


@cache
def records(study: Path = SMALL) -> list[dict[str, Any]]:
    with gzip.open(study / "records.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def of_kind(kind: str, method: str) -> list[dict[str, Any]]:
    return [row for row in records() if row["record"] == kind and row["method"] == method]


@cache
def table(page: Path, header: str) -> dict[str, tuple[str, ...]]:
    """Returns header and rows of the first table whose header line starts with `header`, by their first cell."""
    from_table = dropwhile(lambda line: not line.startswith(header), page.read_text(encoding="utf-8").splitlines())
    lines = list(takewhile(lambda line: line.startswith("| "), from_table))
    assert lines, f"{page} has no table {header!r}"
    rows = [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in (lines[0], *lines[2:])]
    return {row[0]: row[1:] for row in rows}


def summary() -> dict[str, tuple[str, ...]]:
    return table(SMALL / "report.md", SUMMARY)


def scores(method: str) -> dict[tuple[int, int], float]:
    """Returns the average over tasks at each run's best epoch, by (pretraining seed, fine-tuning seed)."""
    by_seeds: dict[tuple[int, int], list[float]] = {}
    for run in of_kind("FinetuneRun", method):
        metric = METRICS.get(run["task"], "accuracy")
        best = max(epoch["metrics"][metric] for epoch in run["epochs"])
        by_seeds.setdefault((run["pretrain_seed"], run["seed"]), []).append(100 * best)
    assert {len(values) for values in by_seeds.values()} == {len(CONFIG.finetune.tasks)}
    return {seeds: statistics.fmean(values) for seeds, values in by_seeds.items()}


def last_checkpoints(method: str) -> dict[int, dict[str, Any]]:
    """Returns the last checkpoints by pretraining seed."""
    step = CONFIG.last_step(method)
    return {row["pretrain_seed"]: row for row in of_kind("Checkpoint", method) if row["step"] == step}


def losses(method: str) -> dict[int, float]:
    """Returns the held-out losses with refitted output bias, by pretraining seed."""
    return {seed: row["validation"]["validation_loss_refit"] for seed, row in last_checkpoints(method).items()}


def plus_minus(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def cell(row: dict[str, str], *titles: str) -> str:
    """Returns the first of the columns that the row has, without marks."""
    return next(row[title] for title in titles if title in row).strip("*†‡§°")


@cache
def rows() -> dict[str, dict[str, str]]:
    """Returns the rows of the summary by model and title."""
    titles = next(iter(summary().values()))
    return {model: dict(zip(titles, cells, strict=True)) for model, cells in summary().items()}


@pytest.mark.parametrize("method", METHODS)
def test_summary_scores_match_the_records(method: str) -> None:
    ours, bert = scores(method), scores("bert")
    assert {fine for _, fine in ours} == set(CONFIG.finetune.seeds)
    row = rows()[LABELS.get(method, method)]
    assert cell(row, "Score", "Average") == plus_minus(list(ours.values()), 2)
    difference = cell(row, "Difference to BERT (paired)", "Difference to BERT")
    if method in ("bert", *other_rows(CONFIG)):
        assert difference == "-"
    else:
        assert difference.startswith(f"{statistics.fmean(ours[seeds] - bert[seeds] for seeds in ours):+.2f}")


@pytest.mark.parametrize("method", CONFIG.methods)
def test_summary_costs_match_the_records(method: str) -> None:
    ours, bert = last_checkpoints(method), last_checkpoints("bert")
    assert tuple(ours) == CONFIG.seeds_of(method)
    ratio = statistics.fmean(r["flops"] for r in ours.values()) / statistics.fmean(r["flops"] for r in bert.values())
    assert cell(rows()[LABELS.get(method, method)], "Relative FLOPs (× BERT)", "FLOPs (× BERT)") == f"{ratio:.2f}"


def report_of_records(root: Path, study: Path) -> ReportResult:
    """Writes a report from the committed records into a new folder, with stand-ins for the text and the task data."""
    (root / "text").mkdir(parents=True)
    (root / "text/a.txt").write_text("x\n")
    for task in resolve(None, study.with_suffix(".toml"), (), {}).config.finetune.tasks:
        (root / "glue" / task).mkdir(parents=True)
        (root / "glue" / task / "train.tsv").write_text("x\n")
    sets = [root / f"{name}.jsonl" for name in ("blimp", "zorro")]
    for path in sets:
        path.write_text("x\n")
    seeds: dict[str, set[int]] = {}
    for record in records(study):
        if record["record"] == "Checkpoint":
            seeds.setdefault(record["method"], set()).add(record["pretrain_seed"])
    own = [
        f'corpus.sources=[{{path="{root / "text"}"}}]', f'finetune.data="{root / "glue"}"',
        f"methods={json.dumps([*seeds])}", f"pretrain.seeds={sorted(set().union(*seeds.values()))}",
        *(f"method.{name}.seeds={sorted(found)}" for name, found in seeds.items()),
        f"minimal_pairs.data={json.dumps([str(path) for path in sets] if study == MASKS else [])}",
        f'report.name="{study.name}"',
    ]  # fmt: skip
    lineage = Lineage(resolve(None, study.with_suffix(".toml"), own, {}).config, Artifacts(root / "art"))
    baselines: dict[str, list[dict[str, Any]]] = {}
    for record in records(study)[1:]:
        row = {name: value for name, value in record.items() if name != "record"}
        if record["record"] == "Baseline":
            baselines.setdefault(row["task"], []).append(row)
        else:
            lineage.artifacts.publish(Marker(key_of(lineage, record["record"], row), "0" * 64, row))
    for task, found in baselines.items():
        lineage.artifacts.publish(Marker(lineage.baseline(task).key, "0" * 64, {"rows": found}))
    return build(lineage)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    return report_of_records(tmp_path_factory.mktemp("small"), SMALL)


def key_of(lineage: Lineage, kind: str, row: dict[str, Any]) -> str:
    if kind == "CorpusManifest":
        return lineage.manifest
    if kind == "Checkpoint":
        return f"{lineage.pretraining(row['method'], row['pretrain_seed']).key}/step{row['step']}"
    if kind == "TaskFacts":
        return lineage.main_task(row["task"]).key
    if kind == "PairScores":
        place = tuple(row[name] for name in ("method", "pretrain_seed", "step", "data"))
        return next(
            artifact.key
            for _, run, artifact in lineage.pair_scores()
            if (run.method, run.pretrain_seed, run.step, run.data) == place
        )
    return lineage.finetuning(GridRun(*(row[field.name] for field in fields(GridRun)))).key


def test_a_report_of_the_records_has_the_same_numbers(built: ReportResult) -> None:
    assert built.value["missing"] == {}
    table = built.tables["table3"]
    found = {row[0].data: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    for method in METHODS:
        average = found[method]["Average"]
        assert average.text == plus_minus(list(scores(method).values()), 2)
        assert average.best == (average.value == max(found[one]["Average"].value for one in METHODS))
    losses_of = {row[0].data: dict(zip(built.tables["heldout"].columns, row, strict=True)) for row in
                 built.tables["heldout"].rows}  # fmt: skip
    for method in (name for name in CONFIG.methods if not CONFIG.method[name].electra):
        assert losses_of[method]["Loss, bias refitted"].text == plus_minus(list(losses(method).values()), 3)
    flat = [row for row in built.value["rows"] if (row["method"], row["task"], row["seed"]) == ("bert", "CoLA", 1)]
    runs = [run for run in of_kind("FinetuneRun", "bert") if (run["task"], run["pretrain_seed"]) == ("CoLA", 1)]
    best = [100 * max(epoch["metrics"]["mcc"] for epoch in run["epochs"]) for run in runs]
    assert [(row["value"], row["n"]) for row in flat] == [(pytest.approx(statistics.fmean(best)), len(best))]


def test_the_page_shows_the_summary() -> None:
    assert table(SMALL.with_suffix(".md"), SUMMARY) == summary()


def test_records_match_the_committed_config() -> None:
    signature = records()[0]["signature"]
    assert signature in (SMALL / "report.md").read_text(encoding="utf-8")
    parts = dict(part.split(":", 1) for part in signature.split("|"))
    assert parts["recipe"] == "small"
    assert parts["finetune-seeds"] == "+".join(map(str, CONFIG.finetune.seeds))
    assert parts["train-rows"] == f"first-{CONFIG.finetune.max_train_examples}"
    assert set(summary()) == {"Model", *(LABELS.get(method, method) for method in METHODS)}


@pytest.mark.parametrize("file", sorted((ROOT / "docs/results").glob("*.toml")), ids=lambda path: path.name)
def test_configs_of_studies_are_valid(file: Path) -> None:
    assert resolve(None, file, (), {}).config.methods


@pytest.mark.parametrize("study", [SMALL, MASKS, LONG])
def test_records_contain_no_corpus_text(study: Path) -> None:
    manifest = next(row for row in records(study) if row["record"] == "CorpusManifest")
    assert manifest["examples"] == {}


COMPARED = (
    ("uniform-30", "bert"), ("spaced-then-uniform", "bert"), ("decay-40-15", "bert"), ("amlm", "bert"),
    ("mapnet-kind", "bert"), ("mapnet", "bert"), ("bert-batch-2x", "bert"), ("pmi", "bert"), ("electra", "bert"),
    ("spaced-then-uniform", "uniform-30"), ("decay-40-15", "uniform-30"), ("decay-30-15", "uniform-30"),
    ("amlm", "decay-40-15"), ("bert", "untrained"), ("uniform-30", "untrained"), ("spaced-then-uniform", "untrained"),
    ("mapnet-kind", "untrained"), ("electra", "untrained"), ("spaced-30", "bert"), ("spaced-30", "uniform-30"),
    ("spaced-30", "spaced-then-uniform"), ("spaced-30", "untrained"), ("spaced-then-uniform-2833", "bert"),
    ("mostly-spaced", "bert"), ("mostly-spaced", "uniform-30"), ("mostly-spaced", "spaced-then-uniform"),
    ("mostly-spaced", "spaced-30"), ("mostly-spaced", "untrained"), ("mostly-spaced-2833", "bert"),
    ("mostly-spaced-2833", "spaced-then-uniform-2833"), ("mostly-spaced", "bert-batch-2x"),
    ("electra-1e-3", "untrained"),
)  # fmt: skip
"""Methods of docs/results/README.md and their controls."""


def differences(values: list[float], digits: int) -> str:
    """Returns up to two values, or the mean and Student's 95% interval of more."""
    low_high = t_interval(values)
    shown = (statistics.fmean(values), *low_high) if low_high else values
    texts = [f"{round(value, digits) + 0.0:+.{digits}f}" for value in shown]  # no -0.0
    return f"{texts[0]} [{', '.join(texts[1:])}]" if low_high else ", ".join(texts)


def share_of_flops(ours: list[tuple[float, float]], theirs: tuple[float, float]) -> tuple[float, bool] | None:
    """Returns our FLOPs at the other's last loss, as a share of the other's FLOPs; None if it is not reached.

    `ours` are (FLOPs, loss) of the milestones, between which log FLOPs are interpolated. The second value is whether
    the first milestone is below that loss already, so that the share is at most the first value.
    """
    flops, target = theirs
    at = next((n for n, (_, loss) in enumerate(ours) if loss <= target), None)
    if at is None:
        return None
    if not at:
        return ours[0][0] / flops, True
    (x0, y0), (x1, y1) = ours[at - 1 : at + 1]
    return math.exp(math.log(x0) + (y0 - target) / (y0 - y1) * math.log(x1 / x0)) / flops, False


def test_shares_of_flops_are_interpolated_or_bounds() -> None:
    ours = [(1.0, 5.0), (4.0, 4.0)]
    assert share_of_flops(ours, (4.0, 4.5)) == (pytest.approx(0.5), False)
    assert share_of_flops(ours, (4.0, 5.5)) == (0.25, True)
    assert share_of_flops(ours, (4.0, 3.9)) is None


@cache
def masks_by_kind(study: Path) -> dict[str, dict[str, Rows]]:
    """Returns checkpoints by method and step, and scores of the last minimal pairs by method and data set."""
    found: dict[str, dict[str, Rows]] = {"Checkpoint": {}, "PairScores": {}}
    last = {row["method"]: row["step"] for row in records(study) if row["record"] == "PairScores"}  # ascending
    for row in records(study):
        if row["record"] == "Checkpoint" or (row["record"] == "PairScores" and row["step"] == last[row["method"]]):
            place = row["step"] if row["record"] == "Checkpoint" else row["data"]
            found[row["record"]].setdefault(row["method"], defaultdict(list))[place].append(row)
    return found


@cache
def masks_glue(study: Path) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Returns scores by method, pretraining seed and task, each the mean over fine-tuning seeds: last and best epochs.

    An encoder counts when all tasks have a run that succeeded.
    """
    found: dict[tuple[str, int], dict[str, list[list[float]]]] = {}
    for row in records(study):
        if row["record"] == "FinetuneRun" and row["epochs"]:
            values = [100 * epoch["metrics"][METRICS.get(row["task"], "accuracy")] for epoch in row["epochs"]]
            tasks = found.setdefault((row["method"], row["pretrain_seed"]), defaultdict(list))
            tasks[row["task"]].append([values[-1], max(values)])
    by_method: dict[str, dict[int, list[dict[str, float]]]] = {}
    complete = max(map(len, found.values()), default=0)
    for (method, seed), tasks in found.items():
        if len(tasks) == complete:
            by_method.setdefault(method, {})[seed] = [
                {task: statistics.fmean(run[epoch] for run in runs) for task, runs in sorted(tasks.items())}
                for epoch in (0, 1)
            ]
    return by_method


def curves(study: Path, method: str, loss: str) -> dict[int, list[tuple[float, float]]]:
    """Returns (FLOPs, loss) of a method's milestones by pretraining seed."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for _, rows in sorted(masks_by_kind(study)["Checkpoint"][method].items()):
        for row in rows:
            found[row["pretrain_seed"]].append((row["flops"], row["validation"][loss]))
    return found


def mean_and_each(values: list[float]) -> str:
    return f"{statistics.fmean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def losses_text(rows: list[dict[str, Any]]) -> str:
    """Returns the mean of each of LOSSES over checkpoints, "-" for ELECTRA's."""
    if LOSSES[0] not in rows[0]["validation"]:
        return "-"
    return " / ".join(f"{statistics.fmean(row['validation'][name] for row in rows):.2f}" for name in LOSSES)


def masks_tables(study: Path) -> list[str]:
    """Returns the rows of docs/results/README.md: losses by step, minimal pairs, differences by paired seeds."""
    losses, pairs = masks_by_kind(study).values()
    lines = []
    for method, by_step in losses.items():
        found = [losses_text(rows) for _, rows in sorted(by_step.items())]
        last = by_step[max(by_step)]
        lines.append(f"| `{method}` | {len(last)} | {' | '.join(found)} | {last[0]['flops']:.3g} |")
    for method, by_data in pairs.items():
        cells = [mean_and_each([100 * row["accuracy"] for row in by_data[data]]) for data in ("blimp", "zorro")]
        lines.append(f"| `{method}` | {len(by_data['blimp'])} | {' | '.join(cells)} |")
    known = {name for name, by_step in losses.items() if losses_text(by_step[max(by_step)]) != "-"} | {"untrained"}
    lines += [_compared(study, *both) for both in COMPARED if {*both} <= known]
    glue = masks_glue(study)
    for method, by_seed in glue.items():
        tasks = [statistics.fmean(row[0][task] for row in by_seed.values()) for task in next(iter(by_seed.values()))[0]]
        averages = [mean_and_each([statistics.fmean(row[at].values()) for row in by_seed.values()]) for at in (0, 1)]
        lines.append(f"| `{method}` | {len(by_seed)} | {' | '.join([*averages, *(f'{task:.1f}' for task in tasks)])} |")
    return lines + [row for both in COMPARED if {*both} <= glue.keys() and (row := _compared_on_glue(study, *both))]


def _compared_on_glue(study: Path, method: str, control: str) -> str:
    """Returns a row, "" without common seeds."""
    ours, theirs = (masks_glue(study)[name] for name in (method, control))
    if control == "untrained":  # one encoder for all seeds
        [only] = theirs.values()
        theirs = dict.fromkeys(ours, only)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return ""
    columns = [
        [statistics.fmean(ours[seed][at].values()) - statistics.fmean(theirs[seed][at].values()) for seed in seeds]
        for at in (0, 1)
    ] + [[ours[seed][0]["STS-B"] - theirs[seed][0]["STS-B"] for seed in seeds]]
    return f"| `{method}` - `{control}` | {len(seeds)} | {' | '.join(differences(found, 1) for found in columns)} |"


def _compared(study: Path, method: str, control: str) -> str:
    losses, pairs = masks_by_kind(study).values()
    cells = []
    for loss in LOSSES[::-1] if control in losses else ():
        ours, theirs = (curves(study, name, loss) for name in (method, control))
        seeds = sorted(ours.keys() & theirs)
        cells.append(differences([ours[seed][-1][1] - theirs[seed][-1][1] for seed in seeds], 3))
        cells.append(shares_text([share_of_flops(ours[seed], theirs[seed][-1]) for seed in seeds]))
    for data in ("blimp", "zorro"):
        own, other = (
            {row["pretrain_seed"]: 100 * row["accuracy"] for row in pairs.get(name, {}).get(data, ())}
            for name in (method, control)
        )
        paired = sorted(own.keys() & other)
        cells.append(differences([own[seed] - other[seed] for seed in paired], 1) if paired else "-")
    return f"| `{method}` - `{control}` | {len(seeds if control in losses else paired)} | {' | '.join(cells)} |"


def shares_text(shares: list[tuple[float, bool] | None]) -> str:
    """Returns each seed's share, or of three and more the geometric mean and its interval, if all were measured."""
    reached = [share for share in shares if share]
    if not reached:
        return "not reached"
    logs = [math.log(share) for share, _ in reached]
    if len(reached) == len(shares) and not any(bound for _, bound in reached) and (interval := t_interval(logs)):
        centre, low, high = (f"{math.exp(value):.2f}" for value in (statistics.fmean(logs), *interval))
        return f"{centre} [{low}, {high}]"
    partial = f" ({len(reached)} of {len(shares)})" if len(reached) < len(shares) else ""
    return ", ".join(f"{'at most ' * bound}{share:.2f}" for share, bound in reached) + partial


@pytest.mark.parametrize("page", ["README.md", "docs/results/README.md"])
def test_masks_match_the_records(page: str) -> None:
    """The rows of tables; the text's figures are not compared."""
    shown = {line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if ROW.match(line)}
    computed = {row for study in (MASKS, LONG) for row in masks_tables(study)}
    assert shown and shown <= computed
    assert page == "README.md" or shown == computed


def test_a_report_of_the_masks_has_their_losses(tmp_path: Path) -> None:
    """Made by mapnet's own means from the same records."""
    result = report_of_records(tmp_path, MASKS)
    losses, pairs = masks_by_kind(MASKS).values()
    shown: dict[str, Any] = {"validation_loss_single": {}, "accuracy": {}}
    for row in result.value["rows"]:
        if (row["task"], row["metric"]) in (("held-out text", "validation_loss_single"), ("zorro", "accuracy")):
            shown[row["metric"]][row["method"], row["seed"], row["step"]] = row["value"]
    expected = {
        (name, row["pretrain_seed"], step): row["validation"]["validation_loss_single"]
        for name, by_step in losses.items() for step, rows in by_step.items() for row in rows
        if "validation_loss_single" in row["validation"]
    }  # fmt: skip
    assert shown["validation_loss_single"] == pytest.approx(expected)
    found = [(name, row) for name, by_data in pairs.items() for row in by_data["zorro"]]
    expected = {(name, row["pretrain_seed"], row["step"]): 100 * row["accuracy"] for name, row in found}
    assert shown["accuracy"] == pytest.approx(expected)
    theirs = curves(MASKS, "bert", "validation_loss_single")
    for method, found in result.value["shares_of_cost_to_final_loss"].items():
        ours = curves(MASKS, method, "validation_loss_single")
        shares = [share_of_flops(ours[seed], theirs[seed][-1]) for seed in sorted(ours.keys() & theirs)]
        assert [at and (at["flops"], at["at_most"]) for at in found.values()] == [
            share and (pytest.approx(share[0]), share[1]) for share in shares
        ]


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(report_of_records(Path(folder), SMALL.with_name(Path(folder).name)).files["index.html"])
    if not sys.argv[1:]:
        print(*masks_tables(MASKS), *masks_tables(LONG), sep="\n")
