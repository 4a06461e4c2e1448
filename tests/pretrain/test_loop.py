"""The training loop: exact resume, milestones, divergence, signals."""

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.config.training import Pretrain as Settings
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import DivergedError, Interrupted
from mapnet_cli.core.records import Checkpoint
from mapnet_cli.jobs.job import Progress, ProgressCallback, ignore_progress, run_job
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.masking.schedule import StepPlan
from mapnet_cli.pretrain import monitor, stage
from mapnet_cli.pretrain.batches import Batch
from mapnet_cli.pretrain.stage import Pretrain, TrainModel
from mapnet_cli.pretrain.step import Algorithm1
from mapnet_cli.report.flags import run_table
from mapnet_cli.report.load import load_results
from mapnet_cli.training import checkpoint
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.conftest import small_config


def train(config: Config, artifacts: Artifacts, method: str, report: ProgressCallback = ignore_progress) -> Path:
    """Runs one pretraining job and returns the folder of its last milestone."""
    jobs = Pretrain(Lineage(config, artifacts)).plan(1)[0].jobs
    job = next(j for j in jobs if isinstance(j, TrainModel) and j.method == method)
    run_job(job, artifacts, report)
    return artifacts.path(f"{job.key}/step{config.pretrain.steps}")


@pytest.mark.parametrize(("gpus", "settings", "parallel", "threads_on_ray", "on_gpus"), [
    (0, (), 4, 12, {"jobs_per_gpu": 1}),
    (2, (), 2, 6, {"jobs_per_gpu": 1}),
    (1, ("pretrain.runs_per_gpu=3",), 3, 4, {"jobs_per_gpu": 3}),
    (2, ("pretrain.processes=2",), 1, 12, {"gpus": 2}),
    (2, ('pretrain.device="cpu"', "pretrain.runs_per_gpu=3"), 4, 12, {}),
])  # fmt: skip
def test_runs_share_gpus(
    gpus: int, settings: tuple[str, ...], parallel: int, threads_on_ray: int, on_gpus: dict[str, int],
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As many runs as asked for on each GPU, or one of several processes on all; four runs on eight workers.

    Ray, which plans for one worker, starts as many on the GPUs: they share the twelve cores.
    """
    monkeypatch.setattr(stage.core, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(stage.jobs, "cores", lambda: 12)
    config = small_config("pretrain.seeds=[1,2]", "pretrain.threads=0", *settings)
    [phase] = Pretrain(Lineage(config, artifacts)).plan(8)
    assert len(phase.jobs) == 4 and phase.max_parallel == parallel
    assert Pretrain(Lineage(config, artifacts)).plan(1)[0].threads == threads_on_ray
    assert {"gpus": phase.gpus, "jobs_per_gpu": phase.jobs_per_gpu} == {"gpus": 0, "jobs_per_gpu": 0} | on_gpus


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder)[0]


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Makes training runs fail at the start of a step, as after a second Ctrl-C: nothing more is saved."""
    real = Algorithm1.__call__

    def interrupted(self: Algorithm1, batch: Batch, plan: StepPlan) -> dict[str, torch.Tensor]:
        if plan.step == step:
            raise KeyboardInterrupt
        return real(self, batch, plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Algorithm1, "__call__", interrupted)
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("bert", ()),
        ("electra", ('methods=["electra"]', "pretrain.micro_batch_size=3")),
        ("mapnet", ()),
        ("mapnet", ("method.mapnet.proposal.learn_on_uniform_steps=false",)),
        ("mapnet", ("method.mapnet.proposal.learn_every=2",)),
        ("mapnet", ("pretrain.visits=4", "method.mapnet.proposal.propose_every=4", "method.mapnet.explore_start=0.5")),
        ("mapnet", ("pretrain.micro_batch_size=3", "pretrain.clip_norm=0.5")),
        ("mapnet", ("method.mapnet.proposal.peak_lr=0.01", "method.mapnet.proposal.embeddings=own")),
        ("mapnet", ("method.mapnet.proposal.clip_norm=0.1", "method.mapnet.mask_rate_end=0.4")),
        ("adaptive", ("pretrain.micro_batch_size=3",)),
        ("adaptive-mapnet", ()),
        ("disjoint", ("pretrain.visits=2",)),
        ("whole-word", ()),
        ("frequency", ()),
        ("amlm", ("method.amlm.proposal.update_every=3",)),
        ("mapnet-kind", ("pretrain.micro_batch_size=3",)),
        ("spaced-then-uniform", ("method.spaced-then-uniform.explore_unit=sentence",)),
        ("bert-batch-2x", ("pretrain.micro_batch_size=3", "method.bert-batch-2x.peak_lr=0.003")),
    ],
)
def test_resume_is_bit_identical(
    method: str,
    keys: tuple[str, ...],
    tmp_path: Path,
    make_corpus: Callable[[Config], object],
    artifacts: Artifacts,
) -> None:
    """A run killed in its sixth step (last checkpoint: step 4) and restarted gives bit-identical weights."""
    config = small_config("pretrain.checkpoint_every=2", f'methods=["{method}"]', *keys)
    make_corpus(config)
    undisturbed = weights(train(config, artifacts, method))
    key = Lineage(config, artifacts).pretraining(method, 1).key
    artifacts.path(key).rename(tmp_path / "undisturbed")
    artifacts.path(key + ".json").unlink()

    with killed_at(5), pytest.raises(KeyboardInterrupt):
        train(config, artifacts, method)
    resumed = weights(train(config, artifacts, method))
    assert undisturbed.keys() == resumed.keys()
    for name, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[name]), name


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Returns the milestones' weights with the times when they were written."""
    return {
        path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("step*/*.safetensors")
    }


def validations(folder: Path, artifacts: Artifacts) -> dict[str, dict[str, float]]:
    key = folder.relative_to(artifacts.root).as_posix()
    return {
        path.stem: artifacts.read(f"{key}/{path.stem}", Checkpoint).validation for path in folder.glob("step*.json")
    }


@pytest.mark.parametrize("changed", ["pretrain.milestones=[0.4, 0.5, 1.0]", "pretrain.validation_sequences=12"])
def test_weights_stay_if_a_milestone_is_added_or_the_validation_changes(
    changed: str, make_corpus: Callable[[Config], object], artifacts: Artifacts, tmp_path: Path
) -> None:
    first = ('methods=["mapnet"]', "pretrain.milestones=[0.4, 1.0]")
    second = (*first, changed)
    make_corpus(small_config())
    folder = train(small_config(*first), artifacts, "mapnet").parent
    before, log = files(folder), (folder / "log.jsonl").read_text()
    assert train(small_config(*second), artifacts, "mapnet").parent == folder
    after = files(folder)
    assert {name: after[name] for name in before} == before, "weights were written again"
    if "sequences" in changed:
        assert (folder / "log.jsonl").read_text() == log
    found = validations(folder, artifacts)
    folder.rename(tmp_path / "first")
    folder.with_name(f"{folder.name}.json").unlink()
    train(small_config(*second), artifacts, "mapnet")
    assert {name: data for name, (_, data) in files(folder).items()} == {
        name: data for name, (_, data) in after.items()
    }
    assert validations(folder, artifacts) == found, "as if they had been made with these settings"


def test_unused_proposal_leaves_bert_bit_identical(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    """With p = 1 and its own embeddings, MAP-Net learns, but the encoder is bit-identical to that of `bert`."""
    never = ("method.mapnet.explore_end=1.0", 'method.mapnet.proposal.embeddings="own"', "encoder.dropout=0.1")
    config = small_config(*never)
    make_corpus(config)
    bert, joint = weights(train(config, artifacts, "bert")), weights(train(config, artifacts, "mapnet"))
    for name, tensor in bert.items():
        assert torch.equal(tensor, joint[name]), name
    start = weights(train(small_config(*never, "pretrain.steps=1"), artifacts, "mapnet"))
    assert any(not torch.equal(joint[name], start[name]) for name in joint.keys() - bert.keys()), "MAP-Net must learn"


def test_damaged_checkpoint_falls_back_to_the_previous_one(
    make_corpus: Callable[[Config], object], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config("pretrain.checkpoint_every=2")
    make_corpus(config)
    undisturbed = weights(train(config, artifacts, "mapnet"))
    key = Lineage(config, artifacts).pretraining("mapnet", 1).key
    artifacts.path(key + ".json").unlink()
    newest = sorted(artifacts.path(f"{key}/resume").iterdir())[-1] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-100] ^= 1
    newest.write_bytes(data)
    warnings: list[str] = []
    again = weights(train(config, artifacts, "mapnet", lambda p: warnings.append(p.warning)))
    assert any("damaged" in warning and "falling back" in warning for warning in warnings)
    for name, tensor in undisturbed.items():
        assert torch.equal(tensor, again[name]), name


def test_milestones_log_and_checkpoints(make_corpus: Callable[[Config], object], artifacts: Artifacts) -> None:
    config = small_config()
    make_corpus(config)
    train(config, artifacts, "mapnet")
    key = Lineage(config, artifacts).pretraining("mapnet", 1).key
    for step in (4, 6, 8, 10):
        artifacts.verify(f"{key}/step{step}")
        row = artifacts.read(f"{key}/step{step}", Checkpoint)
        assert (row.method, row.step, row.pretrain_seed) == ("mapnet", step, 1)
        figure = json.loads(artifacts.path(f"{key}/step{step}/figure2.json").read_text())
        words = figure["sentences"][0]
        assert sum(word["probability"] for word in words) == pytest.approx(1.0, abs=1e-4)
        assert any(word["masked"] for word in words)
        assert all((word["loss"] is not None) == word["masked"] for word in words)
        totals = {what: sum(n for _, n in groups.values()) for what, groups in figure["rates"].items()}
        assert totals["decile"] == totals["position"] == totals["kind"] > 0
    assert len(list(artifacts.path(f"{key}/resume").iterdir())) == config.pretrain.keep_checkpoints
    lines = [json.loads(line) for line in artifacts.path(f"{key}/log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert trained[-1]["step"] == 10
    assert trained[-1]["p"] == pytest.approx(1 / 3)
    assert trained[-1]["flops"] == pytest.approx(row.flops)
    assert {"proposal_entropy", "kl_to_uniform", "gradient_norm", "tokens_per_second"} <= trained[-1].keys()
    assert any("validation_loss" in line for line in lines)


def test_mfu_uses_the_highest_measured_peak(
    make_corpus: Callable[[Config], object], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak is measured at the start and after each validation, here at steps 4, 6, 8 and 10."""
    measured = iter((1e9, 3e9, 2e9, 4e9, 1e9))
    monkeypatch.setattr(monitor.training, "peak_flops", lambda *_: (next(measured), "test"))
    config = small_config("pretrain.log_every=1", "pretrain.validate_every=100")
    make_corpus(config)
    log = train(config, artifacts, "bert").parent / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    peaks = [round(line["flops_per_second"] / line["mfu"] / 1e9) for line in lines if "mfu" in line]
    assert peaks == [1, 1, 1, 1, 3, 3, 3, 3, 4, 4]


@pytest.mark.parametrize("key", ["checkpoint_every=1", "keep_checkpoints=1", "log_every=3"])
def test_keys_outside_the_fingerprint_change_no_result(
    key: str, make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    """Those in `rounding` change at most the order of sums; their own tests compare losses."""
    rounding = {"micro_batch_size", "device", "compile", "processes", "runs_per_gpu", "threads"}
    extras = {name: field.json_schema_extra for name, field in Settings.model_fields.items()}
    outside = {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("operational")}
    assert outside - rounding == {"checkpoint_every", "keep_checkpoints", "log_every"}
    config = small_config('methods=["mapnet"]', "pretrain.checkpoint_every=4")
    make_corpus(config)
    record = train(config, artifacts, "mapnet").with_suffix(".json")
    before = json.loads(record.read_text())["result"]
    artifacts.discard(Lineage(config, artifacts).pretraining("mapnet", 1).key)
    for step in config.milestone_steps("mapnet"):
        artifacts.discard(f"{Lineage(config, artifacts).pretraining('mapnet', 1).key}/step{step}")
    assert (
        train(small_config('methods=["mapnet"]', f"pretrain.{key}"), artifacts, "mapnet").with_suffix(".json") == record
    )
    after = json.loads(record.read_text())["result"]
    assert {**after, "seconds": 0, "timings": 0} == {**before, "seconds": 0, "timings": 0}


def test_divergence_is_recorded_and_the_advice_works(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    keys = ("pretrain.peak_lr=1e30", "pretrain.warmup_steps=0", "pretrain.checkpoint_every=1", 'methods=["bert"]')
    config = small_config(*keys)
    make_corpus(config)
    advice = r"not finite at step (\d+) .*Lower method.bert.peak_lr \(now 1e\+30\) or set pretrain.clip_norm"
    with pytest.raises(DivergedError, match=advice) as error:
        train(config, artifacts, "bert")
    lineage = Lineage(config, artifacts)
    key = lineage.pretraining("bert", 1).key
    for folder in artifacts.path(f"{key}/resume").iterdir():
        tensors, _ = load_checkpoint(folder)
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values()), "the last good checkpoint is kept"
    (step,) = re.findall(r"at step (\d+)", str(error.value))
    assert Pretrain(lineage).progress().lines[0].endswith(f"of 10, diverged at step {step}")
    assert f"diverged at step {step}" in [row[-1].text for row in run_table(load_results(lineage)).rows]
    lowered = small_config(*keys, "method.bert.peak_lr=1e-3")
    train(lowered, artifacts, "bert")
    assert Pretrain(Lineage(lowered, artifacts)).progress().lines[0].startswith("bert seed 1: step 10 of 10, loss")


def test_training_continues_while_a_checkpoint_is_written(
    make_corpus: Callable[[Config], object], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow write delays neither steps nor log lines, only the next checkpoint."""
    config = small_config("pretrain.steps=6", "pretrain.milestones=[1.0]", "pretrain.checkpoint_every=2",
                          "pretrain.log_every=1", "pretrain.validate_every=0")  # fmt: skip
    make_corpus(config)
    reached: list[float] = []
    third = threading.Event()
    real = checkpoint.save_checkpoint

    def slow(*arguments: Any) -> str:
        assert third.wait(30), "training waits for its checkpoint"
        return real(*arguments)

    def report(progress: Progress) -> None:
        reached.append(progress.done)
        if progress.done == 3:
            third.set()

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    train(config, artifacts, "bert", report)
    assert reached == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("signals_not_ignored")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_stop(number: int, make_corpus: Callable[[Config], object], artifacts: Artifacts) -> None:
    config = small_config("pretrain.checkpoint_every=0", "pretrain.log_every=1")
    make_corpus(config)

    def stop(progress: Progress) -> None:
        if progress.done == 5:
            signal.raise_signal(number)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(Interrupted):
        train(config, artifacts, "bert", stop)
    key = Lineage(config, artifacts).pretraining("bert", 1).key
    assert [p.name for p in sorted(artifacts.path(f"{key}/resume").iterdir())] == ["step000000004", "step000000006"]


def test_source_weight_affects_training(make_corpus: Callable[[Config], object], artifacts: Artifacts) -> None:
    """With weight 2, an epoch has every sequence twice, in a different order, so the trained weights differ."""
    found = []
    for weight in (1.0, 2.0):
        config = small_config("pretrain.steps=4", f'corpus.sources=[{{kind="cpython", weight={weight}}}]')
        if not found:
            make_corpus(config)
        found.append(weights(train(config, artifacts, "bert")))
    assert any(not torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_collapsed_proposal_causes_a_warning(make_corpus: Callable[[Config], object], artifacts: Artifacts) -> None:
    """With an initial standard deviation of 5, MAP-Net is nearly deterministic from the start; with 0.02, uniform."""
    warnings: dict[float, list[str]] = {}
    for std in (5.0, 0.02):
        config = small_config(f"proposal.init_std={std}", "pretrain.steps=4")
        if not warnings:
            make_corpus(config)
        texts = warnings.setdefault(std, [])
        train(config, artifacts, "mapnet", lambda p, texts=texts: texts.append(p.warning))
    assert any("has collapsed by step 2" in text and "method.mapnet.explore_end" in text for text in warnings[5.0])
    assert not any(warnings[0.02])


def test_twice_the_batch_equals_a_batch_of_that_size(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    config = small_config('methods=["bert-batch-2x"]')
    make_corpus(config)
    doubled = weights(train(config, artifacts, "bert-batch-2x"))
    plain = weights(train(small_config('methods=["bert"]', "pretrain.batch_size=8"), artifacts, "bert"))
    for name, tensor in plain.items():
        assert torch.equal(tensor, doubled[name]), name
