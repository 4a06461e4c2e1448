"""The command line, called through typer's test runner: options, exit codes, stdout and stderr."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mapnet_cli import __version__
from mapnet_cli.cli.commands import app
from mapnet_cli.cli.options import PANELS
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.lineage.graph import Lineage
from tests.prepare_corpus.corpora import text_folder

COMMANDS = [
    "init", "run", "status", "report", "prepare-corpus", "pretrain", "minimal-pairs", "finetune-glue", "export",
    "predict-glue", "import-hf", "variance", "runs", "clean", "verify", "doctor", "config",
]  # fmt: skip
CONFIG, HOW = ["--recipe", "--config", "--set", "--artifacts"], ["--dry-run", "--force"]
SHOW = ["--quiet", "--verbose", "--log-file", "--json"]
CHECKPOINT, ENGINE = ["--method", "--seed", "--step"], ["--engine", "--ray-address"]
STAGES = ["prepare-corpus", "minimal-pairs", "finetune-glue"]
OPTIONS = {
    **{key: [*CONFIG, "--workers", *ENGINE, *HOW, *SHOW] for key in STAGES},
    **{key: [*CONFIG, "--workers", "--processes", *ENGINE, *HOW, *SHOW] for key in ["pretrain", "run"]},
    **{key: [*CONFIG, "--json"] for key in ["doctor", "config show", "runs"]},
    "init": ["folder", "--to", "--json"],
    "clean": ["others", "--unfinished", "--yes", *CONFIG, "--json"],
    "report": ["folders", "--compare", "--to", "--watch", "--every", *CONFIG, "--json"],
    "status": ["--watch", "--every", *CONFIG, "--json"],
    "verify": ["--heal", *CONFIG, "--json"],
    "export": ["folder", *CHECKPOINT, "--task", *CONFIG, "--json"],
    "predict-glue": ["file", *CHECKPOINT, *CONFIG, "--workers", "--force", *SHOW],
    "import-hf": ["folder", "--name", "--artifacts", "--json"],
    "variance": [
        "--checkpoint", "--seed", "--step", "--strategies", "--sentences", "--masks", "--visits", *CONFIG, "--force",
        *SHOW,
    ],
    "config keys": [],
    "config schema": [],
}  # fmt: skip


def invoke(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_commands_and_options_are_unchanged() -> None:
    """New commands and options must be added to these lists."""
    from typer.main import get_command

    group = get_command(app)
    assert list(group.commands) == COMMANDS
    commands = {name: command for name, command in group.commands.items() if name != "config"}
    commands |= {f"config {name}": command for name, command in group.commands["config"].commands.items()}
    assert {name: [option.opts[0] for option in command.params] for name, command in commands.items()} == OPTIONS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    assert "Usage:" in out
    assert len(out.split("Usage:")[1].strip().splitlines()) > 3


def test_version() -> None:
    assert invoke("--version") == invoke("-V") == (0, f"mapnet {__version__}\n", "")


def test_help_groups_the_commands_and_shows_no_types_of_flags() -> None:
    """Every command is under a heading, first steps first."""
    out = invoke("--help")[1]
    headings = [line.strip("╭─╮ ") for line in out.splitlines() if line.startswith("╭─")]
    assert headings == ["Options", *PANELS]
    assert sorted(name for names in PANELS.values() for name in names) == sorted(COMMANDS)
    assert "<bool>" not in out + invoke("run", "--help")[1]
    assert "--install-completion" in out


def test_the_schema_accepts_shipped_configs_and_names_mistakes() -> None:
    from jsonschema import Draft7Validator

    schema = json.loads(invoke("config", "schema")[1])
    Draft7Validator.check_schema(schema)
    validator, root = Draft7Validator(schema), Path(__file__).parents[2]
    files = [*root.glob("mapnet_cli/recipes/*.toml"), *root.glob("examples/*.toml"), root / "tests/methods.toml"]
    assert len(files) > 5
    for file in files:
        assert list(validator.iter_errors(tomllib.loads(file.read_text(encoding="utf-8")))) == [], file
    extra = {"finetune": {"task_data": {"QQP": "elsewhere"}}, "method": {"a": {"electra": False}}}
    assert validator.is_valid(extra)
    for wrong in ({"pretrain": {"step": 5}}, {"pretrain": {"steps": 0}}, {"method": {"a": {"strategy": "spacd"}}}):
        assert not validator.is_valid(wrong), wrong
    described = schema["$defs"]["Corpus"]["properties"]["validation_every"]
    assert (described["minimum"], described["description"]) == (2, "Hold out every N-th document for validation.")


def test_dry_run_lists_phases_and_writes_nothing(tmp_path: Path) -> None:
    code, out, _ = invoke("run", "--dry-run", "--artifacts", str(tmp_path / "a"), "--recipe", "demo")
    assert code == 0
    for phase in ("clean", "vocabulary", "pretrain", "probe tasks", "finetune"):
        assert phase in out
    assert "FLOPs" in out
    assert not (tmp_path / "a").exists()


def test_dry_run_as_json(tmp_path: Path) -> None:
    code, out, err = invoke("finetune-glue", "--dry-run", "--json", "--artifacts", str(tmp_path))
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert {row["stage"] for row in rows} == {"finetune-glue"}
    assert all(row["done"] == 0 < row["total"] for row in rows)


def test_the_docs_list_every_key() -> None:
    """docs/config.md equals the output of `mapnet config keys`."""
    code, out, _ = invoke("config", "keys")
    assert code == 0
    page = Path(__file__).parents[2] / "docs" / "config.md"
    assert out == page.read_text(encoding="utf-8"), "run: mapnet config keys > docs/config.md"
    for row in ("| `steps` | `1000000` |", "| `max_symbol_share` |", "## [[corpus.sources]]", "## [method.NAME]"):
        assert row in out


def test_config_show_lists_origins() -> None:
    code, out, _ = invoke("config", "show", "--set", "pretrain.steps=5")
    assert code == 0
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert lines["pretrain.steps"].endswith("# --set")
    assert "recipe demo:" in lines["encoder.layers"]
    assert lines["pretrain.adam_eps"].endswith("# default")
    shown = json.loads(invoke("config", "show", "--json", "--set", "pretrain.steps=5")[1])
    assert shown["pretrain.steps"] == {"value": 5, "origin": "--set"}


def test_status_of_an_empty_folder(tmp_path: Path) -> None:
    code, out, _ = invoke("status", "--artifacts", str(tmp_path))
    assert code == 0
    assert out.count("to do") == len(out.splitlines())
    with Artifacts(tmp_path).lock("prepare-corpus"):
        out = invoke("status", "--artifacts", str(tmp_path))[1]
    assert out.count("running") == 1, "phases run one after the other"
    assert out.splitlines()[0].endswith("running")


def test_status_lists_unused_artifacts(tmp_path: Path) -> None:
    config = resolve("demo", None, (), {}).config
    used = Lineage(config, Artifacts(tmp_path)).pretraining("bert", 1).key
    for folder in (used, "pretrain/bert-seed1-0123abcd", "pretrain/mine", "prepare-corpus/text-0123abcd"):
        (tmp_path / folder / "deeper").mkdir(parents=True)
        (tmp_path / folder / "deeper" / "weights").write_bytes(bytes(3_000_000))
    lines = invoke("status", "--artifacts", str(tmp_path))[1].splitlines()
    unused = "prepare-corpus/text-0123abcd (3 MB), pretrain/bert-seed1-0123abcd (3 MB)"
    assert lines[-1] == f"Not used with these settings: {unused}"
    with Artifacts(tmp_path).lock("pretrain"):
        rows = json.loads(invoke("status", "--json", "--artifacts", str(tmp_path))[1])
    by_stage = {row["stage"]: row for row in rows if "unused_mb" in row}
    assert by_stage["prepare-corpus"]["unused_mb"] == {"prepare-corpus/text-0123abcd": 3.0}
    assert "pretrain" not in by_stage, "skipped, since another process may be moving its files"
    missing = ["--set", "corpus.sources=[{path='nowhere'}]"]
    out = invoke("status", "--artifacts", str(tmp_path), *missing)[1]
    assert "Not used" not in out, "fingerprints are unknown without the text"


def test_doctor_describes_this_machine(tmp_path: Path) -> None:
    facts = json.loads(invoke("doctor", "--json", "--artifacts", str(tmp_path))[1])
    assert {"python", "torch", "cores", "memory", "artifacts", "gpus"} <= facts.keys()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--set", "pretrain.step=5"], 2, "did you mean 'steps'"),
        (["run", "--recipe", "dmeo"], 2, "did you mean 'demo'"),
        (["pretrain", "--set", "method.mapnet.strategy=mapnte"], 2, "did you mean 'mapnet'"),
        (["finetune-glue", "--set", 'finetune.tasks=["RTF"]'], 2, "did you mean 'RTE'"),
        (["finetune-glue", "--set", 'finetune.metrics.RTE="f2"'], 2, "did you mean 'f1'"),
        (["pretrain"], 2, "mapnet run"),
        (["prepare-corpus", "--set", "corpus.sources=[{path='nowhere'}]"], 3, "nowhere"),
        (["prepare-corpus", "--recipe", "paper"], 2, "corpus.sources"),
        (["finetune-glue", "--set", "finetune.data=nowhere"], 3, "nowhere"),
    ],
)
def test_exit_codes_and_messages(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    found, out, err = invoke(*arguments, "--artifacts", str(tmp_path), "--workers", "0")
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["method.mapnet.strategy=mapnte"], 2, "did you mean 'mapnet'"),
        (["pretrain.steps=100", "pretrain.warmup_steps=100"], 2, "pretrain.warmup_steps"),
        (['finetune.from_mnli=["MNLI"]'], 2, "MNLI itself can't start from MNLI"),
        (['minimal_pairs.data=["pairs.txt"]'], 3, "pairs.txt: 3 lines, but pairs take an even number"),
        (["finetune.data=.", 'finetune.tasks=["RTE"]', 'finetune.subsets=["RTE"]'], 3, "dev.tsv:2: "),
    ],
)
def test_a_run_checks_all_stages_before_the_first(
    settings: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.txt").write_text("a\nb\nc\n")
    (tmp_path / "RTE").mkdir()
    row = "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tRain.\t"
    (tmp_path / "RTE/train.tsv").write_text(f"{row}entailment\n")
    (tmp_path / "RTE/dev.tsv").write_text(f"{row}maybe\n")
    found, out, err = invoke("run", "--workers", "0", *(word for one in settings for word in ("--set", one)))
    assert (found, out) == (code, "")
    assert message in err
    assert not (tmp_path / "artifacts/prepare-corpus").exists()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_closed_pipe_ends_quietly(options: list[str]) -> None:
    """As of `mapnet config show | head`."""
    command = [sys.executable, "-m", "mapnet_cli", "config", "show", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == ""


def test_exit_codes_of_a_damaged_file_and_a_held_lock(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    with artifacts.lock("pretrain"):
        code, _, err = invoke("pretrain", "--artifacts", str(tmp_path), "--workers", "0")
    assert (code, "is running pretrain" in err) == (5, True)
    invoke("run", "--dry-run", "--artifacts", str(tmp_path))
    (tmp_path / "inputs.json").write_text("{")
    code, _, err = invoke("status", "--artifacts", str(tmp_path), "--set", f"finetune.data={tmp_path}")
    assert (code, "damaged" in err) == (4, True)


LOOKS = [
    ["status"], ["report"], ["run", "--dry-run"], ["prepare-corpus", "--dry-run"], ["config", "show"], ["doctor"],
    ["export", "out"], ["variance"], ["predict-glue", "out.zip"],
]  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_commands_that_look_create_nothing(arguments: list[str], tmp_path: Path) -> None:
    """Neither in a folder that isn't an artifact directory nor in one that doesn't exist."""
    text = text_folder(tmp_path / "text", files=2)
    config = tmp_path / "c.toml"
    config.write_text(f'recipe = "demo"\n[[corpus.sources]]\npath = "{text}"\n')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    before = content(tmp_path)
    for folder in ("other", "gone"):
        code, _, err = invoke(*arguments, "--config", str(config), "--artifacts", str(tmp_path / folder))
        assert code in (0, 2), err
        assert content(tmp_path) == before
        assert not (tmp_path / "gone").exists()
    code, _, err = invoke(*arguments, "--config", str(config), "--artifacts", str(text))
    assert code == 2
    assert "is in corpus.sources.0.path" in err
    assert content(tmp_path) == before


def test_own_output_is_not_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the text's folder as the working directory, a second run finds the corpus of the first."""
    text_folder(tmp_path / "part", files=6)
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "corpus.sources=[{path='.'}]", "--set", "corpus.validation_every=3", "--workers", "0"]
    small = ["--set", "corpus.vocab_size=320", "--set", "encoder.max_length=64", "--set", "corpus.block_length=64"]
    assert invoke("prepare-corpus", *settings, *small)[0] == 0
    code, _, err = invoke("prepare-corpus", *settings, *small)
    assert code == 0
    assert "corpus.sources.0: skipped 1 artifact directories of mapnet: artifacts" in err or "skipped 1" not in err
    rows = json.loads(invoke("status", "--json", *settings[:4], *small)[1])
    assert all(row["done"] == row["total"] for row in rows if row["stage"] == "prepare-corpus")
    assert len(list((tmp_path / "artifacts" / "prepare-corpus").glob("text-*"))) == 1


def test_the_error_names_an_unusable_artifact_directory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    code, _, err = invoke("pretrain", "--artifacts", str(blocked), "--workers", "0")
    assert code == 1
    assert str(blocked) in err
    assert "Traceback" not in err
