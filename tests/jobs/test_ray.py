"""The Ray engine on a local cluster of two nodes: the same behaviour as the local engine, and dying nodes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is optional: pip install 'mapnet[ray]'")

import ray  # after importorskip
from ray.cluster_utils import Cluster

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts, Marker, write_text
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import InputError, MapnetError, UsageError
from mapnet_cli.jobs import ray as ray_cluster
from mapnet_cli.jobs.job import Output, Phase, Progress, ProgressCallback, is_done
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.jobs.ray import RayEngine, connect, task_resources
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.lineage.milestones import find_milestone
from mapnet_cli.pretrain.stage import Pretrain
from tests.conftest import small_config
from tests.e2e import test_plugins as plugins
from tests.finetune_glue import grids
from tests.jobs.conftest import NODE
from tests.jobs.test_local import Written, die_always, die_once, fail_on_three, job, phase, runs, wait_for, write_number

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(cluster: Cluster, artifacts: Artifacts) -> Iterator[RayEngine]:
    artifacts.root.mkdir()
    with RayEngine(artifacts, Console(quiet=True), cluster.address) as engine:
        yield engine


def delete_input(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    artifacts.discard("jobs/need")
    return write_number(artifacts, progress, number)


def report_progress(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    progress(Progress(1, 4, "a quarter"))
    progress(Progress(1, 4, warning="low disk space"))
    return write_number(artifacts, progress, number)


def work_on_nodes(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    """Finishes quickly, except that the node named in the file "doomed" hangs at its second job."""
    node = ray.get_runtime_context().get_node_id()
    done = sum(path.read_text().startswith(node) for path in artifacts.path("at").glob("[0-9]*"))
    write_text(artifacts.path(f"at/{number}"), f"{node} {os.getpid()}")
    if done and node == artifacts.path("doomed").read_text():
        write_text(artifacts.path("stuck"), f"{number} {os.getpid()}")
        time.sleep(60)
    time.sleep(0.1)
    return write_number(artifacts, progress, number)


def sleep_long(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    write_text(artifacts.path("started"), str(os.getpid()))
    try:
        for _ in range(600):
            time.sleep(0.1)  # Ray can cancel a task only between bytecode instructions
    except KeyboardInterrupt:
        write_text(artifacts.path("stopped"), "")
        raise
    return Output()


def test_jobs_run_once_unless_forced(engine: RayEngine, artifacts: Artifacts) -> None:
    for _ in range(2):
        engine.run([phase(write_number)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "3", "4"]
    marker = artifacts.require("jobs/3")
    assert (marker.row(Written), list(marker.files), marker.fingerprint) == (Written(number=3), ["out/3.txt"], "f1")
    engine.force = True
    engine.run([phase(write_number, 1)])
    assert sorted(runs(artifacts)) == ["0", "0", "1", "2", "3", "4"]


def test_a_failure_is_raised_after_the_other_jobs_finish(engine: RayEngine, artifacts: Artifacts) -> None:
    with pytest.raises(InputError, match=r"number 3 is bad.*\[node .*1 of 5 jobs failed"):
        engine.run([phase(fail_on_three), phase(write_number, 9)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "4"]
    assert not is_done(phase(write_number, 9).jobs[8], artifacts), "later phases don't start"


def test_only_the_job_of_a_killed_worker_is_retried(
    engine: RayEngine, artifacts: Artifacts, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.run([phase(die_once)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "3", "4"]
    assert "died (WorkerCrashedError) while running jobs/2; retrying" in capsys.readouterr().err


def test_a_job_that_always_kills_its_worker_fails(engine: RayEngine) -> None:
    with pytest.raises(MapnetError, match=r"jobs/0: a worker or its node died \(WorkerCrashedError\), 3 times"):
        engine.run([phase(die_always, 1)])


def test_killing_the_progress_actor_affects_no_job(
    engine: RayEngine, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_inbox = ray_cluster._start_inbox

    def start_and_kill() -> Any:
        inbox = start_inbox()
        os.kill(ray.get(inbox.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        return inbox

    monkeypatch.setattr(ray_cluster, "_start_inbox", start_and_kill)
    engine.run([phase(report_progress)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "3", "4"]


def test_progress_and_warnings_arrive(
    engine: RayEngine, capsys: pytest.CaptureFixture[str], artifacts: Artifacts
) -> None:
    engine.console = Console()
    engine.run([phase(report_progress, 1)])
    stderr = capsys.readouterr().err
    assert "warning: jobs/0: low disk space" in stderr
    assert "25% a quarter" in stderr
    assert "count: 1/1 jobs" in stderr


def test_the_error_names_a_node_without_the_inputs(engine: RayEngine, artifacts: Artifacts) -> None:
    artifacts.publish(Marker("jobs/need", "f", {}))
    engine.limit = 1  # one job at a time
    jobs = [job(delete_input, n, needs=("jobs/need",)) for n in range(2)]
    with pytest.raises(UsageError, match=r"jobs/1: missing inputs on node [\d.]+: jobs/need .* share the folder"):
        engine.run([Phase("two", jobs)])
    assert runs(artifacts) == ["0"]


def test_the_error_names_a_folder_that_is_missing_on_a_node(engine: RayEngine, artifacts: Artifacts) -> None:
    artifacts.root.rmdir()
    with pytest.raises(UsageError, match=r"jobs/0: .*on node [\d.]+: .*artifacts does not exist; share the folder"):
        engine.run([phase(write_number, 1)])


def test_a_job_is_done_only_when_its_marker_appears(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "MARKER_TIMEOUT", 0.3)
    finished = job(write_number, 0)
    assert not ray_cluster._marker_appears(finished, artifacts)
    monkeypatch.setattr(ray_cluster, "MARKER_TIMEOUT", 30.0)
    late = threading.Timer(0.3, artifacts.publish, [Marker(finished.key, finished.fingerprint, {})])
    late.start()
    assert ray_cluster._marker_appears(finished, artifacts)
    late.join()


def test_only_the_running_jobs_of_a_dead_node_are_retried(
    engine: RayEngine, cluster: Cluster, artifacts: Artifacts, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node is killed in mid-run: all jobs finish, and no finished job runs again."""
    node = cluster.add_node(**NODE)
    write_text(artifacts.path("doomed"), node.node_id)
    stuck = artifacts.path("stuck")

    def kill() -> None:
        wait_for(stuck.exists, 120)  # a node starts slowly on a busy machine
        cluster.remove_node(node, allow_graceful=False)
        with suppress(ProcessLookupError):  # it may have ended with its node
            os.kill(int(stuck.read_text().split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    engine.run([phase(work_on_nodes, 24)])
    killer.join()
    assert all(is_done(job, artifacts) for job in phase(work_on_nodes, 24).jobs)
    assert sorted(runs(artifacts), key=int) == [str(n) for n in range(24)]
    lost = stuck.read_text().split()[0]
    stderr = capsys.readouterr().err
    assert f"while running jobs/{lost}; retrying" in stderr
    assert stderr.count("; retrying") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_tasks_stop_when_their_driver_ends(
    number: signal.Signals, code: int, cluster: Cluster, artifacts: Artifacts
) -> None:
    program = (
        "import signal\nfrom mapnet_cli.cli.options import _as_keyboard_interrupt\n"
        "signal.signal(signal.SIGTERM, _as_keyboard_interrupt)\n"
        "from pathlib import Path\nfrom tests.jobs.test_ray import *\nfrom mapnet_cli.core.errors import Interrupted\n"
        f"with RayEngine(Artifacts(Path({str(artifacts.root)!r})), Console(quiet=True), {cluster.address!r}) as it:\n"
        "    try:\n        it.run([phase(sleep_long, 3)])\n"
        "    except Interrupted:\n        raise SystemExit(130)\n"
    )
    artifacts.root.mkdir()
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as driver:
        wait_for(artifacts.path("started").exists)
        driver.send_signal(number)
        assert driver.wait(30) == code
    task = int(artifacts.path("started").read_text())
    if number == signal.SIGKILL:
        wait_for(lambda: not Path(f"/proc/{task}").exists())
    else:
        wait_for(artifacts.path("stopped").exists)


def test_a_grid_gives_the_same_records_as_the_local_engine(
    cluster: Cluster, artifacts: Artifacts, make_corpus: Callable[[Config], object], tmp_path: Path
) -> None:
    settings = grids.train(artifacts, make_corpus, tmp_path, 'finetune.tasks=["MNLI"]')
    local, nodes = tmp_path / "local", tmp_path / "nodes"
    for root in (local, nodes):
        subprocess.run(["cp", "-r", artifacts.root, root], check=True)
    grids.fine_tune(local, settings, "--workers", "1")
    grids.fine_tune(nodes, settings, "--engine", "ray", "--ray-address", cluster.address)
    assert len(grids.records(nodes)) == 1 + 1 + 4
    assert grids.records(nodes) == grids.records(local)


def test_pretraining_gives_the_same_weights_as_the_local_engine(
    engine: RayEngine, artifacts: Artifacts, make_corpus: Callable[[Config], object], tmp_path: Path
) -> None:
    config = small_config('methods=["mapnet"]', "pretrain.threads=1", "encoder.dropout=0.1")
    make_corpus(config)
    here = Artifacts(tmp_path / "here")
    subprocess.run(["cp", "-r", artifacts.root, here.root], check=True)
    ours, theirs = Lineage(config, artifacts), Lineage(config, here)
    engine.run(Pretrain(ours).plan(1))
    LocalEngine(here, Console(quiet=True), 0).run(Pretrain(theirs).plan(1))
    found, expected = (find_milestone(lineage, "mapnet", 1, 10) for lineage in (ours, theirs))
    assert found.fingerprint == expected.fingerprint


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto", "local"])
def test_a_missing_cluster_is_reported_within_seconds(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # used by "auto"
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"no cluster found at .*ray start --head.*--engine local"):
        connect(address)
    assert time.monotonic() - start < 10
    assert not ray.is_initialized()


def test_task_resources() -> None:
    cpus, gpus = [{"CPU": 8.0}], [{"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0}]
    shared = Phase("p", [], threads=12, gpu_bytes=2**30)
    assert task_resources(shared, cpus, 0) == {"num_cpus": 8, "num_gpus": 0}
    assert task_resources(shared, gpus, 7 * 2**30) == {"num_cpus": 12, "num_gpus": 0.1666}
    assert task_resources(shared, gpus, 0)["num_gpus"] == 1
    assert task_resources(Phase("p", [], gpu_bytes=2**30, jobs_per_gpu=4), gpus, 0)["num_gpus"] == 0.25
    assert task_resources(Phase("p", [], gpus=2), gpus, 0)["num_gpus"] == 2
    assert task_resources(Phase("p", []), gpus, 0) == {"num_cpus": 1, "num_gpus": 0}
    small = [{"CPU": 64.0}, {"CPU": 4.0, "GPU": 1.0}]
    assert task_resources(Phase("p", [], threads=8, gpus=1), small, 0) == {"num_cpus": 4, "num_gpus": 1}
    with pytest.raises(UsageError, match=r"p: one run needs 2 GPUs, but no node of the cluster has that many"):
        task_resources(Phase("p", [], "run", gpus=2), small, 0)


def test_plugins_run_on_the_nodes_that_have_them(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    site, project = plugins.install(tmp_path / "plugin"), plugins.write_project(tmp_path)
    run = project, site, "run", "-c", "mine.toml", "--engine", "ray", "--ray-address", cluster.address
    with pytest.raises(AssertionError, match=r"no package with the entry point 'subtitles'.* is installed here \[node"):
        plugins.mapnet(*run)
    shutil.copytree(site, os.environ["PYTHONPATH"].split(os.pathsep)[1], dirs_exist_ok=True)
    out = plugins.mapnet(*run)
    assert "agreement" in out and "blocks seed 1: held-out loss" in out
