"""A local Ray cluster of two nodes."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="package")
def cluster() -> Iterator["Cluster"]:
    """Ray cluster of two nodes with one core each, in a temporary folder."""
    from ray.cluster_utils import Cluster

    with (
        # a short path, since socket paths are limited; Ray may still write there during clean-up
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        packages = Path(folder, "packages")  # that a test may install on the nodes
        packages.mkdir()
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), str(packages)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        Path("/tmp/ray").mkdir(exist_ok=True)  # Cluster writes its address there and doesn't create the folder
        handler = signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # as in a background job of a shell; inherited by the nodes
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"temp_dir": folder})
        try:
            cluster.add_node(**NODE)
            signal.signal(signal.SIGINT, handler)
            yield cluster
        finally:
            cluster.shutdown()
