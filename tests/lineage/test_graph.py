"""Changing a value changes exactly the fingerprints that depend on it."""

import os
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from mapnet_cli import config as config_package
from mapnet_cli.config import Config, Method, Source
from mapnet_cli.config.explain import flatten
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.errors import InputError
from mapnet_cli.core.records import Imported
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.lineage.digests import Digests, import_id, list_input
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.lineage.milestones import precision_advice
from mapnet_cli.masking.strategies import STRATEGIES
from tests.conftest import small_config

FINGERPRINT_OF: dict[str, Callable[[Lineage], str]] = {
    "text": lambda at: at.text.fingerprint,
    "corpus": lambda at: at.corpus.fingerprint,
    "bert": lambda at: at.pretraining("bert", 1).fingerprint,
    "mapnet": lambda at: at.pretraining("mapnet", 1).fingerprint,
    "electra": lambda at: at.pretraining("electra", 1).fingerprint,
    "task": lambda at: at.task("RTE").fingerprint,
    "bert run": lambda at: at.finetuning(GridRun("bert", 1, 10, "RTE", 16, 1e-3, 1)).fingerprint,
    "mapnet run": lambda at: at.finetuning(GridRun("mapnet", 1, 10, "RTE", 16, 1e-3, 1)).fingerprint,
}
EVERYTHING = set(FINGERPRINT_OF)
AFTER_TEXT = EVERYTHING - {"text"}
MODELS = {"bert", "mapnet", "electra", "bert run", "mapnet run"}


@pytest.fixture(autouse=True)
def tiny(artifacts: Artifacts) -> None:
    """Publishes an import called "tiny"."""
    artifact = import_id("tiny", {"layers": 1}, "weights", "tokenizer")
    row = Imported(
        name="tiny", path=artifact.key, encoder={"layers": 1, "max_length": 20}, vocab_size=9, fingerprint="weights",
        tokenizer="t.json", tokenizer_fingerprint="tokenizer",
    )  # fmt: skip
    artifacts.publish(Marker(artifact.key, artifact.fingerprint, row.to_json()))


def changed(artifacts: Artifacts, *overrides: str) -> set[str]:
    before, after = (Lineage(small_config(*more), artifacts) for more in ((), overrides))
    return {name for name, get in FINGERPRINT_OF.items() if get(before) != get(after)}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("corpus.cleanup.min_chars=40", EVERYTHING),
        ("corpus.lowercase=never", EVERYTHING),
        ("corpus.tokenizer=tiny", EVERYTHING),
        ("corpus.vocab_size=301", AFTER_TEXT),
        ("corpus.block_length=15", AFTER_TEXT),
        ("encoder.layers=2", MODELS),
        ("encoder.max_length=17", AFTER_TEXT - {"corpus"}),
        ("proposal.layers=2", {"mapnet", "mapnet run"}),
        ("method.mapnet.proposal.ratio_clip=0.3", {"mapnet", "mapnet run"}),
        ("method.bert.mask_rate=0.3", {"bert", "bert run"}),
        ("method.bert.strategy=spaced", {"bert", "bert run"}),
        ("method.bert.init_from=tiny", {"bert", "bert run"}),
        ("method.electra.electra.generator_fraction=0.5", {"electra"}),
        ("method.electra.electra.detection_weight=10.0", {"electra"}),
        ("method.bert.electra={}", {"bert", "bert run"}),
        ("pretrain.peak_lr=2e-3", MODELS),
        ("finetune.epochs=2", {"bert run", "mapnet run"}),
        ("finetune.max_train_examples=5", {"task", "bert run", "mapnet run"}),
        ("finetune.seeds=[1,2]", set()),
        ("finetune.milestones=[1.0]", set()),
        ("finetune.untrained=true", set()),
        ('finetune.subsets=["RTE"]', set()),
        ('finetune.from_mnli=["RTE"]', {"bert run", "mapnet run"}),
        ('finetune.from_mnli=["MRPC"]', set()),
        ('finetune.tasks=["RTE"]', set()),
        ("finetune.epoch=last", set()),
        ('imports=["tiny"]', set()),
        ("pretrain.seeds=[1,2]", set()),
        ("method.bert.seeds=[1,2]", set()),
        ("method.bert.steps=9", {"bert", "bert run"}),
        ("pretrain.threads=2", set()),
        ("pretrain.log_every=3", set()),
        ("pretrain.validate_every=3", set()),
        ("pretrain.validation_sequences=4", set()),
        ("pretrain.milestones=[0.5, 1.0]", set()),
        ("pretrain.checkpoint_every=1", set()),
    ],
)
def test_a_value_changes_its_dependents(override: str, expected: set[str], artifacts: Artifacts) -> None:
    assert changed(artifacts, override) == expected


@pytest.mark.parametrize(
    ("own", "common"),
    [
        ("method.bert.steps=9", "pretrain.steps=9"),
        ("method.bert.batch_factor=2", "pretrain.batch_size=8"),
        ("method.bert.peak_lr=0.1", "pretrain.peak_lr=0.1"),
    ],
)
def test_a_methods_own_settings_are_its_pretrain_settings(own: str, common: str, artifacts: Artifacts) -> None:
    """The result of a run with the same number of steps, batch size or peak rate is reused."""
    first, second = (Lineage(small_config(key), artifacts).pretraining("bert", 1) for key in (own, common))
    assert first == second
    assert changed(artifacts, own) == {"bert", "bert run"}


def test_every_key_that_matters_changes_something(artifacts: Artifacts) -> None:
    """A key missing from the lineage would let stale results be reused."""
    config = small_config()
    free = {
        "recipe", "methods", "finetune.tasks", "finetune.batch_sizes", "finetune.learning_rates", "finetune.seeds",
        "finetune.metrics", "finetune.epoch", "finetune.baselines", "pretrain.seeds", "corpus.sources", "finetune.data",
        "finetune.task_data", "finetune.subsets", "finetune.untrained", "finetune.milestones",
        "pretrain.validate_every", "pretrain.validation_sequences", "pretrain.milestones",  # no weights depend on them
        "finetune.mnli_batch_size", "finetune.mnli_learning_rate",  # only with from_mnli: tested below
    }  # fmt: skip
    sections = ("corpus", "encoder", "proposal", "pretrain", "finetune")
    for key, value in flatten({name: getattr(config, name).model_dump(mode="json") for name in sections}).items():
        if key in free or is_operational(config, key):
            continue
        other = _another(key, value)
        assert changed(artifacts, f"{key}={other}"), f"{key} = {value} -> {other} changes no fingerprint"


def is_operational(config: Config, key: str) -> bool:
    section, _, field = key.partition(".")
    extra = type(getattr(config, section)).model_fields[field.split(".")[0]].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("operational"))


@pytest.mark.parametrize("method", ["bert", "mapnet", "adaptive", "frequency"])
def test_every_key_of_a_method_changes_its_pretraining(method: str, artifacts: Artifacts) -> None:
    """Covers a method without a proposal, and one with each kind of proposal."""
    free = {"steps", "seeds", "batch_factor", "peak_lr"}  # override those of [pretrain]: tested above
    settings = small_config().method[method]
    if settings.proposal:
        free |= {"electra", "strategy", "proposal.kind"}  # invalid with a proposal, or tested as another method below
    else:
        free |= {"proposal"}  # invalid
    before = _pretraining(artifacts, method)
    for key, value in flatten(settings.model_dump(mode="json")).items():
        if key in free:
            continue
        other = _another(f"method.{key}", value)
        after = _pretraining(artifacts, method, f"method.{method}.{key}={other}")
        assert before != after, f"{key} = {value} -> {other} changes no fingerprint"


def test_every_strategy_has_distinct_settings() -> None:
    settings = [Method(strategy=name).results_view() for name in STRATEGIES]
    assert all(a != b for a, b in combinations(settings, 2))


def test_removing_the_generator_changes_the_fingerprint(artifacts: Artifacts) -> None:
    config = small_config()
    plain = config.method["electra"].model_copy(update={"electra": None})
    without = config.model_copy(update={"method": config.method | {"electra": plain}})
    assert Lineage(without, artifacts).pretraining("electra", 1).fingerprint != _pretraining(artifacts, "electra")


@pytest.mark.parametrize("key", ["explore_start=1.0", f"explore_end={1 / 3}"])
def test_exploration_without_a_proposal_changes_the_fingerprint(key: str, artifacts: Artifacts) -> None:
    """Its default is 0 without a proposal, so the defaults of a proposal are changes."""
    assert _pretraining(artifacts, "spaced", f"method.spaced.{key}") != _pretraining(artifacts, "spaced")


def test_milestones_count_where_the_weights_depend_on_them(artifacts: Artifacts) -> None:
    """With wsd, each is the end of a branch; their records depend on the validation."""
    more, wsd, fewer = "pretrain.milestones=[0.5, 1.0]", "pretrain.schedule=wsd", "pretrain.validation_sequences=4"
    assert _pretraining(artifacts, "bert", wsd, more) != _pretraining(artifacts, "bert", wsd)
    one, other = (Lineage(small_config(*keys), artifacts).milestones("bert", 1) for keys in ((), (fewer,)))
    assert {step: part.key for step, part in one.items()} == {step: part.key for step, part in other.items()}
    assert not {part.fingerprint for part in one.values()} & {part.fingerprint for part in other.values()}


def test_the_tables_memory_counts_only_for_a_running_mean(artifacts: Artifacts) -> None:
    memory, rule = "method.adaptive.proposal.memory=7", "method.adaptive.proposal.update_every=3"
    assert _pretraining(artifacts, "adaptive", memory) != _pretraining(artifacts, "adaptive")
    assert _pretraining(artifacts, "adaptive", rule, memory) == _pretraining(artifacts, "adaptive", rule)


FINGERPRINTS = {
    "bert": "0c39ae3a", "mapnet": "a090553b", "spaced-30": "16e3d277", "adaptive": "ff3369fa",
    "adaptive-mapnet": "61c8b976", "electra": "4a5e766f", "frequency": "dec610a3", "disjoint": "243e1768",
}  # fmt: skip
"""Fingerprints of pretraining runs with the small config and no text."""


@pytest.mark.parametrize("method", FINGERPRINTS)
def test_existing_results_are_found(method: str, artifacts: Artifacts) -> None:
    """Only an increase in FORMATS or a changed default may change these."""
    assert _pretraining(artifacts, method, "corpus.sources=[]")[:8] == FINGERPRINTS[method]


def test_existing_fine_tuning_results_are_found(artifacts: Artifacts) -> None:
    lineage = Lineage(small_config("corpus.sources=[]", 'finetune.data="probe"'), artifacts)
    run = GridRun("bert", 1, 10, "RTE", 16, 1e-3, 1)
    assert lineage.finetuning(run).fingerprint[:8] == "50ced86b"
    assert lineage.mnli_start("bert", 1, 10).fingerprint[:8] == "2f79fdbc"


def test_automatic_precision_is_that_of_this_machine(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results in different precisions never share a name."""
    run, seen = GridRun("bert", 1, 10, "RTE", 16, 1e-3, 1), []
    for here in ("float32", "bfloat16"):
        monkeypatch.setattr(config_package, "automatic_precision", lambda device, here=here: here)
        for precision in ("auto", here):
            lineage = Lineage(
                small_config(f"pretrain.precision={precision}", f"finetune.precision={precision}"), artifacts
            )
            seen.append((lineage.pretraining("bert", 1), lineage.finetuning(run)))
    assert seen[0] == seen[1] and seen[2] == seen[3]
    assert seen[0][0] != seen[2][0] and seen[0][1] != seen[2][1]


def test_results_in_another_precision_are_pointed_out(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there are results in this machine's precision, or until the advice is followed."""
    auto = ("pretrain.precision=auto", "finetune.precision=auto", "corpus.sources=[]")
    monkeypatch.setattr(config_package, "automatic_precision", lambda device: "float32")
    trained = Lineage(small_config(*auto), artifacts).pretraining("bert", 1)
    artifacts.publish(Marker(trained.key, trained.fingerprint, {}, {}))
    assert precision_advice(small_config(*auto), artifacts) == ""
    monkeypatch.setattr(config_package, "automatic_precision", lambda device: "bfloat16")
    advice = precision_advice(small_config(*auto), artifacts)
    assert advice.startswith(f"{trained.key} is finished, in float32, but automatic precision here is bfloat16")
    settings = re.findall(r"\w+\.precision=\w+", advice)
    followed = small_config(*auto, *settings)
    assert Lineage(followed, artifacts).pretraining("bert", 1) == trained
    assert precision_advice(followed, artifacts) == ""
    own = Lineage(small_config(*auto), artifacts).pretraining("bert", 1)
    artifacts.publish(Marker(own.key, own.fingerprint, {}, {}))
    assert precision_advice(small_config(*auto), artifacts) == ""


def _pretraining(artifacts: Artifacts, method: str, *overrides: str) -> str:
    return Lineage(small_config(*overrides), artifacts).pretraining(method, 1).fingerprint


@pytest.mark.parametrize(
    "setting", ["mnli_batch_size=8", "mnli_learning_rate=1e-4", "seeds=[2]", "epochs=2", "pooling=mean"]
)
def test_runs_that_start_from_mnli_depend_on_the_mnli_run(setting: str, artifacts: Artifacts) -> None:
    run = GridRun("bert", 1, 10, "RTE", 16, 1e-3, 1)
    start = 'finetune.from_mnli=["RTE"]'
    before, after = (Lineage(small_config(start, *more), artifacts) for more in ((), (f"finetune.{setting}",)))
    assert before.mnli_start("bert", 1, 10) != after.mnli_start("bert", 1, 10)
    assert before.finetuning(run) != after.finetuning(run)


def _another(key: str, value: object) -> str:
    choices = {
        "corpus.on_bad_utf8": "skip", "corpus.lowercase": "never", "corpus.blocks": "sentence",
        "corpus.cleanup.short_paragraphs": "join", "corpus.cleanup.characters": "moses",
        "corpus.spacy_pipeline": "x", "pretrain.precision": "bfloat16", "method.proposal.precision": "bfloat16",
        "corpus.tokenizer": "tiny", "method.init_from": "tiny", "finetune.from_mnli": '["RTE"]',
        "finetune.batching": "by-length", "finetune.pooling": "mean", "finetune.precision": "bfloat16",
        "method.electra": "{}", "method.explore_start": "0.25", "method.explore_end": "0.25",
        "method.explore_unit": "sentence", "method.proposal.signal_at": "mask", "method.proposal.baseline": "batch",
        "method.strategy": "spaced", "method.proposal.estimator": "position-ratio",
        "method.proposal.objective": "loss-matching", "method.proposal.signal": "one-minus-p",
        "method.proposal.sampler": "gumbel" if value == "systematic" else "systematic",
        "method.proposal.embeddings": "own",
        "method.proposal.loss_weight_on": "encoder", "pretrain.schedule": "wsd", "pretrain.milestones": "[1.0]",
        "pretrain.adam_betas": "[0.8, 0.9]", "finetune.adam_betas": "[0.8, 0.9]",
        "corpus.vocab_size": "301", "encoder.max_length": "17", "proposal.max_length": "17",
        "encoder.initial_positions": "random", "encoder.architecture": "modernbert",
        "proposal.architecture": "modernbert",
        "proposal.initial_positions": "random", "encoder.heads": "4", "proposal.heads": "4",
        "encoder.hidden": "32", "proposal.hidden": "16",
    }  # fmt: skip
    if key in choices:
        return choices[key]
    if isinstance(value, bool):
        return str(not value).lower()
    assert isinstance(value, int | float), key
    if isinstance(value, int):
        return str(value - 1 if key == "corpus.block_length" else max(value - 1, 1) if value > 1 else value + 1)
    return str(value / 2 + 0.011)


def test_corpus_depends_on_input_contents_not_on_location(artifacts: Artifacts, tmp_path: Path) -> None:
    def lineage(folder: Path) -> Lineage:
        corpus = small_config().corpus.model_copy(update={"sources": (Source(path=str(folder)),)})
        return Lineage(small_config().model_copy(update={"corpus": corpus}), artifacts)

    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    first = lineage(folder).corpus
    assert lineage(folder.rename(tmp_path / "moved")).corpus == first
    (tmp_path / "moved" / "a.txt").write_text("two")
    second = lineage(tmp_path / "moved").corpus
    assert second != first
    (tmp_path / "moved" / "a.txt").unlink()
    (tmp_path / "moved").rmdir()
    assert lineage(tmp_path / "moved").corpus == second, "copied artifacts work without the text"
    with pytest.raises(InputError, match="nowhere does not exist"):
        _ = lineage(tmp_path / "nowhere").corpus


def test_task_files_change_the_fingerprints(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.tsv").write_text("x")
    assert changed(artifacts, f"finetune.data={tmp_path}") == {"task", "bert run", "mapnet run"}


def test_retrained_spacy_pipeline_changes_the_fingerprint(artifacts: Artifacts, tmp_path: Path) -> None:
    prints = []
    for content in ("one", "two"):
        (tmp_path / "meta.json").write_text(content)
        prints.append(Lineage(small_config(f"corpus.spacy_pipeline={tmp_path}"), artifacts).text.fingerprint)
    assert prints[0] != prints[1]


def test_changed_file_with_the_same_size_and_mtime_is_detected(artifacts: Artifacts, tmp_path: Path) -> None:
    """rsync and tar preserve mtime."""
    file = tmp_path / "a.txt"
    digests = []
    for content in ("one", "two"):
        file.write_text(content)
        os.utime(file, (1, 1))
        digests.append(Digests(artifacts).folder(tmp_path))
    assert digests[0] != digests[1]


def test_links_to_folders_are_followed_without_cycles(tmp_path: Path) -> None:
    for name in ("in/a.txt", "elsewhere/b.txt", "elsewhere/.hidden/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "here").symlink_to(tmp_path / "in")
    found = list_input(tmp_path / "in")
    assert [file.name for file in found.files] == ["a.txt", "more/b.txt"]
    assert found.hidden == ["more/.hidden"]


def test_keys_are_readable_and_end_in_the_fingerprint(artifacts: Artifacts) -> None:
    config: Config = small_config()
    artifact = Lineage(config, artifacts).finetuning(GridRun("bert", 1, 400, "RTE", 16, 1e-5, 3))
    assert artifact.key == (f"finetune-glue/bert-seed1/step400/RTE/batch16-lr1e-05-seed3-{artifact.fingerprint[:8]}")


def test_source_keys_change_their_dependents(artifacts: Artifacts, tmp_path: Path) -> None:
    def prints(**keys: object) -> dict[str, str]:
        source = Source.model_validate({"kind": "cpython", **keys})
        corpus = small_config().corpus.model_copy(update={"sources": (source,)})
        at = Lineage(small_config().model_copy(update={"corpus": corpus}), artifacts)
        return {name: get(at) for name, get in FINGERPRINT_OF.items()}

    def changes(**keys: object) -> set[str]:
        before, after = prints(), prints(**keys)
        return {name for name in FINGERPRINT_OF if before[name] != after[name]}

    assert changes(weight=2.0) == MODELS, "the text and its shards don't change"
    assert not changes(column="x", name="x", split="x", documents="blank-lines", hyphens="keep"), "unused by the kind"
    (tmp_path / "a.jsonl").write_text("{}")
    for kind, key in (("jsonl", "column"), ("dataset", "split"), ("dataset", "name"), ("text", "hyphens")):
        path = str(tmp_path / "a.jsonl")
        assert prints(kind=kind, path=path) != prints(kind=kind, path=path, **{key: "keep"}), key
    assert changes(weight=1.0) == changes(licence="MIT") == set()
    assert changes(limit=3) == EVERYTHING
    hub = {"kind": "dataset", "path": "hub:some/prose"}
    assert prints(**hub) != prints(**hub | {"path": "hub:some/prose@1"}) != prints(**hub | {"split": "test"})
