"""`mapnet variance` from the command line, on checkpoints of ten steps."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from mapnet_cli.cli.commands import app
from mapnet_cli.cli.stages import run_stages
from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.variance.results import NORMS
from tests.conftest import SMALL, small_config

pytestmark = pytest.mark.slow

SAMPLE = ("--sentences", "4", "--masks", "4", "--visits", "2")


@pytest.fixture
def trained(artifacts: Artifacts, make_corpus: Callable[[Config], CorpusManifest]) -> Artifacts:
    config = small_config()
    make_corpus(config)
    run_stages(["pretrain"], Lineage(config, artifacts), Console(quiet=True), workers=0, force=False)
    return artifacts


def variance(artifacts: Artifacts, *arguments: str) -> tuple[int, str, str]:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    done = CliRunner().invoke(app, ["variance", "--artifacts", str(artifacts.root), *settings, *SAMPLE, *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def measured(artifacts: Artifacts, *arguments: str) -> dict[str, Any]:
    code, out, err = variance(artifacts, "--json", *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_methods_strategies_and_oracles_side_by_side(trained: Artifacts) -> None:
    names = "spaced,mapnet,disjoint,frequency,whole-word,span,oracle-loss,oracle-gradient,uniform"
    found = measured(trained, "--checkpoint", "bert", "--strategies", names)
    rows = {row["name"]: row for row in found["measured"]}
    assert list(rows) == ["uniform", *names.split(",")[:-1]]
    assert rows["mapnet"]["proposal"] == "mapnet, seed 1, step 10"
    assert (rows["mapnet"]["estimator"], rows["oracle-loss"]["estimator"]) == ("sequence-ratio", "horvitz-thompson")
    assert [name for name, row in rows.items() if row["clipping"]] == ["mapnet", "frequency"], "sequential draws"
    for row in rows.values():
        assert set(row["variances"]) == set(NORMS)
        assert row["variances"]["raw"]["mask"]["value"] > 0
    assert found["second_moments"] == "optimiser state at step 10"
    assert found["projection"] is None
    assert "weights:" in found["signature"] and "method:bert" in found["signature"]


def test_results_are_reused_and_force_reproduces_them(trained: Artifacts) -> None:
    code, out, err = variance(trained, "--checkpoint", "mapnet", "--strategies", "mapnet")
    assert code == 0, err
    assert "Gradient variance, raw: mapnet, seed 1, step 10" in out
    (folder,) = (path for path in trained.path("variance").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == {"variance.json", "variance.md", "variance.png"}
    assert (folder / "variance.png").read_bytes().startswith(b"\x89PNG")
    first = (folder / "variance.json").read_text()
    stamp = folder.stat().st_mtime_ns
    code, out, err = variance(trained, "--checkpoint", "mapnet", "--strategies", "mapnet")
    assert (code, err) == (0, "")
    assert str(folder / "variance.md") in out.replace("\n", "")
    assert folder.stat().st_mtime_ns == stamp
    (folder / "variance.md").write_text("damaged")
    code, _, err = variance(trained, "--checkpoint", "mapnet", "--strategies", "mapnet")
    assert (code, "--force" in err) == (4, True)
    found = measured(trained, "--checkpoint", "mapnet", "--strategies", "mapnet", "--force")
    assert folder.stat().st_mtime_ns != stamp
    (folder / "variance.md").unlink()
    assert measured(trained, "--checkpoint", "mapnet", "--strategies", "mapnet") == found, "measured again"
    assert (folder / "variance.md").exists()
    assert (folder / "variance.json").read_text() == first
    assert json.loads(first) == found


def test_other_weights_or_settings_are_a_separate_measurement(trained: Artifacts) -> None:
    measured(trained, "--checkpoint", "bert", "--strategies", "uniform")
    measured(trained, "--checkpoint", "bert", "--strategies", "uniform", "--step", "4")
    measured(trained, "--checkpoint", "bert", "--strategies", "uniform", "--masks", "6")
    assert len([path for path in trained.path("variance").iterdir() if path.is_dir()]) == 3


def test_bare_strategies_have_the_clip_bounds_of_the_checkpoint(trained: Artifacts) -> None:
    def clip(*arguments: str) -> tuple[Any, str]:
        found = measured(trained, "--checkpoint", "mapnet", "--strategies", "frequency,mapnet", *arguments)
        (frequency,) = (row for row in found["measured"] if row["name"] == "frequency")
        return frequency["clipping"]["clip"], found["signature"]

    own = "method.mapnet.proposal.ratio_clip=0.5"
    run_stages(["pretrain"], Lineage(small_config(own), trained), Console(quiet=True), workers=0, force=False)
    (default, first), (wide, second) = clip(), clip("--set", own)
    assert (default, wide) == (0.2, 0.5)
    assert first != second


def test_a_strategy_reads_the_corpus_once(trained: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    found, prepare = [], STRATEGIES["pmi"].prepare
    counted = replace(STRATEGIES["pmi"], prepare=lambda corpus: found.append(corpus) or prepare(corpus))
    monkeypatch.setitem(STRATEGIES, "pmi", counted)
    measured(trained, "--checkpoint", "bert", "--strategies", "pmi")
    assert len(found) == 1


def test_second_moments_are_estimated_without_optimiser_state(trained: Artifacts) -> None:
    for folder in trained.path("pretrain").glob("*/resume"):
        shutil.rmtree(folder)
    found = measured(trained, "--checkpoint", "bert", "--strategies", "uniform")
    assert found["second_moments"].startswith("estimated from")
    assert found["measured"][0]["variances"]["adam"]["mask"]["value"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--checkpoint"),
        (("--checkpoint", "bret"), "no method 'bret'"),
        (("--checkpoint", "bert", "--step", "5"), "--step: 5"),
        (("--checkpoint", "bert", "--strategies", "spced"), "did you mean 'spaced'"),
        (
            ("--set", 'methods=["bert","electra"]', "--checkpoint", "bert", "--strategies", "electra"),
            "isn't trained on masked tokens' losses",
        ),
        (("--set", "method.mapnet.strategy=spced", "--checkpoint", "bert", "--strategies", "mapnet"), "did you mean"),
        (("--checkpoint", "bert", "--masks", "5"), "multiple of --visits"),
        (("--checkpoint", "bert", "--sentences", "3"), "--sentences"),
        (("--checkpoint", "bert", "--sentences", "13"), "has only 12"),
    ],
)
def test_errors_name_the_invalid_option(trained: Artifacts, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = variance(trained, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_error_without_a_trained_model(artifacts: Artifacts, make_corpus: Callable[[Config], CorpusManifest]) -> None:
    make_corpus(small_config())
    code, _, err = variance(artifacts, "--checkpoint", "bert")
    assert code == 2
    assert "mapnet pretrain" in err
