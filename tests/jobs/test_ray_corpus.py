"""kill -9 during corpus preparation on a Ray cluster of two nodes: the output equals an uninterrupted local run's."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="Ray is optional: pip install 'mapnet[ray]'")

from ray.cluster_utils import Cluster  # after importorskip

from tests.faults.kills import KILLS, Process
from tests.faults.test_corpus_kills import campaign
from tests.jobs.conftest import NODE

pytestmark = pytest.mark.slow

KINDS = ("worker", "node", "driver")


def tasks(cluster: Cluster) -> list[int]:
    """Returns the ids of processes that run a task or an actor on any node, excluding Ray's own processes."""
    found = []
    for node in cluster.list_all_nodes():
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for child in raylet.children(recursive=True):
            with suppress(psutil.Error):  # the process has just ended
                name = child.cmdline()[:1]
                if name and name[0].startswith("ray::") and not any(own in name[0] for own in ("IDLE", "Agent")):
                    found.append(child.pid)
    return found


def test_kill_9_of_workers_nodes_and_drivers_affects_only_running_slices(cluster: Cluster, tmp_path: Path) -> None:
    killed: list[str] = []

    def kill(root: Path, driver: Process) -> bool:
        kind = KINDS[len(killed) % len(KINDS)]
        if kind == "worker":
            running = tasks(cluster)
            if not running:
                return False
            os.kill(running[0], signal.SIGKILL)
        elif kind == "node":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(**NODE)
        else:
            driver.kill()
        killed.append(kind)
        return True

    on_ray = ["--engine", "ray", "--ray-address", cluster.address]
    kills = max(len(KINDS), KILLS)
    campaign(tmp_path, lambda root: ["--workers", "1"] if root.name == "uninterrupted" else on_ray, kill, kills)
    assert len(killed) == kills
