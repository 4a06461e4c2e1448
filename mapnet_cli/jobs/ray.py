"""The Ray engine: runs jobs as tasks on an existing Ray cluster.

A task whose worker or node dies is retried. The artifact directory must be shared by all nodes: a job counts
as done when the driver can see its marker. Ray is imported only by the functions that need it.
"""

import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from mapnet_cli.core import Artifacts, Console, Interrupted, MapnetError, UsageError, min_total_memory, query_gpus
from mapnet_cli.jobs.engine import ATTEMPTS, GRACE, STOPPED, STOPPING, Engine, attempt, throttled
from mapnet_cli.jobs.job import Job, Phase, Progress, is_done, missing_needs, show

IN_FLIGHT = 1_000
"""Maximum number of submitted tasks: enough for a large cluster, few enough to limit memory and to stop quickly."""
POLL_INTERVAL = 0.05  # seconds between two polls for finished tasks
CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the cluster's head to accept a connection; Ray itself would try for two minutes."""
MARKER_TIMEOUT = 60.0
"""Seconds to wait for a marker written on another node to appear: NFS caches that a file doesn't exist."""
AUTO = "auto"
ADVICE = (
    "Start one with `ray start --head` on this machine and `ray start --address=HOST:PORT` on the others, "
    "pass the address of another cluster as --ray-address HOST:PORT, or use --engine local"
)


class RayEngine(Engine):
    """Runs the jobs of a phase on a Ray cluster, at most `workers` at a time (None: as many as fit on the cluster).

    Use it as a context manager; it connects on entry and raises UsageError if Ray or the cluster is missing.
    """

    def __init__(
        self, artifacts: Artifacts, console: Console, address: str, workers: int | None = None, force: bool = False
    ) -> None:
        super().__init__(Artifacts(artifacts.root.absolute()), console, force)
        self.address = address
        self.limit = min(workers or IN_FLIGHT, IN_FLIGHT)

    def __enter__(self) -> "RayEngine":
        connect(self.address)
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def _run_jobs(self, jobs: list[Job], phase: Phase) -> list[MapnetError]:
        import ray

        queue, failures, attempts = deque(jobs), [], Counter[str]()
        inbox = _start_inbox()
        task = ray.remote(max_retries=0, **self._task_resources(phase))(_run)
        with _in_flight_tasks(self.console) as in_flight:
            while queue or in_flight:
                while queue and len(in_flight) < self.limit:
                    job = queue.popleft()
                    attempts[job.key] += 1
                    in_flight[task.remote(job, self.artifacts.root, Path.cwd(), inbox)] = job
                ended, _ = ray.wait(list(in_flight), num_returns=len(in_flight), timeout=POLL_INTERVAL)
                for key, progress in _take_updates(inbox):
                    show(self.console, key, progress)
                for reference in ended:
                    job = in_flight.pop(reference)
                    failure = self._outcome(job, reference)
                    if failure is None:
                        self.console.advance(job.key)
                    elif not isinstance(failure, _Lost):
                        failures.append(failure)
                    elif attempts[job.key] < ATTEMPTS:
                        self.console.warn(f"{failure} while running {job.key}; retrying")
                        queue.append(job)
                    else:
                        failures.append(MapnetError(f"{job.key}: {failure}, {ATTEMPTS} times"))
        return failures

    def _outcome(self, job: Job, reference: Any) -> MapnetError | None:
        """Returns the failure of a finished task: None if it succeeded, _Lost if its worker or node died."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            node, failure = ray.get(reference)
        except RayTaskError as error:  # raised before `_run` starts, e.g. if mapnet isn't installed on that node
            return MapnetError(f"{job.key} can't start on a node of the cluster:\n{error}")
        except RayError as error:
            return _Lost(f"a worker or its node died ({type(error).__name__})")
        if isinstance(failure, MapnetError):
            return failure
        if not _marker_appears(job, self.artifacts):
            raise UsageError(
                f"{job.key} finished on node {node}, but this machine doesn't find its marker in "
                f"{self.artifacts.root}; --artifacts must be a folder that all nodes share"
            )
        return None

    def _task_resources(self, phase: Phase) -> dict[str, float]:
        import ray

        nodes = [node["Resources"] | {"id": node["NodeID"]} for node in ray.nodes() if node["Alive"]]
        memory = 0
        if phase.gpu_bytes and not phase.jobs_per_gpu and (with_gpus := [n["id"] for n in nodes if n.get("GPU")]):
            memory = _min_gpu_memory(with_gpus)
            if not memory:
                self.console.warn("nvidia-smi doesn't report the GPUs' memory; running one job per GPU at a time")
        return task_resources(phase, nodes, memory)


def task_resources(phase: Phase, nodes: list[dict[str, Any]], gpu_memory: int) -> dict[str, float]:
    """Returns the resources that a job requests from Ray: cores, at most those of the largest node, and GPUs.

    `nodes` are the resources of the cluster's nodes, `gpu_memory` the bytes of the smallest GPU (0: unknown). GPUs may
    be fractional, and are 0 on a cluster without GPUs. Raises UsageError if no node has enough: Ray would wait forever.
    """
    gpus = 0.0
    if any(node.get("GPU") for node in nodes):
        # rounded down to Ray's resolution of 1/10,000, so that the shares don't add up to more than one GPU
        gpus = phase.gpus or (10_000 // phase.on_gpu(gpu_memory) / 10_000 if phase.shares_gpus else 0.0)
    suitable = [node.get("CPU", 0) for node in nodes if node.get("GPU", 0) >= gpus]
    if not suitable:
        raise UsageError(f"{phase.name}: one {phase.unit} needs {gpus} GPUs, but no node of the cluster has that many")
    return {"num_cpus": min(phase.threads, max(suitable)), "num_gpus": gpus}


def _min_gpu_memory(nodes: list[str]) -> int:
    """Returns the memory of the smallest GPU of these nodes in bytes, 0 if a node doesn't report it."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    query = ray.remote(num_cpus=0)(query_gpus)
    pinned = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    try:
        outputs = ray.get([query.options(scheduling_strategy=strategy).remote() for strategy in pinned])
        return min(map(min_total_memory, outputs))
    except RayError:  # a node has just died
        return 0


class _Lost(MapnetError):
    """The task's worker or node died, so the job can be retried."""


class _Inbox:
    """Actor on the driver's node that buffers the tasks' progress updates until the driver takes them."""

    def __init__(self) -> None:
        self._updates: list[tuple[str, Progress]] = []

    def put(self, key: str, progress: Progress) -> None:
        self._updates.append((key, progress))

    def take(self) -> list[tuple[str, Progress]]:
        updates, self._updates = self._updates, []
        return updates


def _start_inbox() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Inbox).remote()


def _take_updates(inbox: Any) -> list[tuple[str, Progress]]:
    """Returns the progress updates since the last call, or none while a dead inbox is restarting."""
    import ray
    from ray.exceptions import RayError

    try:
        return cast(list[tuple[str, Progress]], ray.get(inbox.take.remote()))
    except RayError:
        return []


def _run(job: Job, root: Path, folder: Path, inbox: Any) -> tuple[str, MapnetError | None]:
    """Runs a job once, as a Ray task; returns the node's address, and the failure or None."""
    import ray
    from ray.exceptions import RayError

    node = ray.util.get_node_ip_address()
    # Ray cancels tasks with SIGINT, which is ignored if `ray start` ran as a background job of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError):  # for relative input paths; a job reports missing files itself
        os.chdir(folder)
    artifacts = Artifacts(root)
    if not root.is_dir() or (missing := missing_needs(job, artifacts)):
        lack = f"{', '.join(missing)} in {root}" if root.is_dir() else f"{root} does not exist"
        return node, UsageError(f"{job.key}: missing inputs on node {node}: {lack}; share the folder with all nodes")

    def report(progress: Progress) -> None:
        sent = inbox.put.remote(job.key, progress)
        if progress.warning:
            with suppress(RayError):
                ray.get(sent)  # so that a warning arrives before the job ends

    try:
        failure = attempt(job, artifacts, throttled(report))
    except Interrupted:
        failure = _Lost(f"node {node} was stopped")
    if failure is None or isinstance(failure, _Lost):
        return node, failure
    return node, type(failure)(f"{failure} [node {node}]")


@contextmanager
def _in_flight_tasks(console: Console) -> Iterator[dict[Any, Job]]:
    """Yields an empty dict for the running tasks (reference to job); cancels those left in it on exit."""
    import ray

    in_flight: dict[Any, Job] = {}
    try:
        yield in_flight
    except KeyboardInterrupt:
        console.note(STOPPING)
        raise Interrupted(STOPPED) from None
    finally:
        for reference in in_flight:
            ray.cancel(reference)
        if in_flight:
            ray.wait(list(in_flight), num_returns=len(in_flight), timeout=GRACE)


def _marker_appears(job: Job, artifacts: Artifacts) -> bool:
    """Returns whether the job's marker exists, after waiting up to MARKER_TIMEOUT for a shared folder to update."""
    deadline = time.monotonic() + MARKER_TIMEOUT
    while not is_done(job, artifacts):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
        with suppress(OSError):
            list(artifacts.path(job.key).parent.iterdir())  # makes NFS refresh its cache
    return True


def connect(address: str) -> None:
    """Connects this process to a running cluster; raises UsageError within seconds if there is none."""
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs Ray: pip install 'mapnet[ray]', or use --engine local") from None
    address = _resolve_address(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError:
        raise UsageError(f"--engine ray: no cluster is running on this machine. {ADVICE}") from None
    except (RuntimeError, ValueError, SystemExit) as error:  # another version of Ray, or not Ray at all
        raise UsageError(f"--engine ray: can't use the cluster at {address} ({error}). {ADVICE}") from None
    finally:
        for number, handler in handlers.items():  # ray.init installs its own handlers
            signal.signal(number, handler)


def _resolve_address(address: str) -> str:
    """Returns the address to connect to, or "auto" if Ray has to find it; raises UsageError if nothing listens there.

    As in Ray, "auto" means RAY_ADDRESS, or the cluster that `ray start` has started on this machine.
    """
    current = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or (current.read_text(encoding="utf-8") if current.exists() else AUTO)
    if address == AUTO:
        return address
    host, _, port = address.strip().rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT):
            return address.strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--engine ray: no cluster found at {address!r} ({error}). {ADVICE}") from None
