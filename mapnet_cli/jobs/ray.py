"""The Ray engine: jobs as tasks of a Ray cluster that is there already.

A task whose worker or node dies is tried again elsewhere. The artifact directory must be a folder
that all nodes share: a job counts as done when its marker stands where the driver looks. Ray is
imported by what needs it.
"""

import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from mapnet_cli.core import Artifacts, Console, Interrupted, MapnetError, UsageError
from mapnet_cli.jobs.engine import ATTEMPTS, GRACE, STOPPED, STOPPING, Engine, attempt, throttled
from mapnet_cli.jobs.job import Job, Phase, Progress, is_done, missing_needs, show
from mapnet_cli.jobs.resources import gpu_listing, least_memory, sharing

IN_FLIGHT = 1_000
"""Tasks handed to Ray at a time: enough for a large cluster, few enough for Ray's memory and for a quick stop."""
LOOK = 0.05
"""Seconds between two looks at what has ended; Ray has more tasks to go on with meanwhile."""
ANSWER = 5.0
"""Seconds in which a cluster's head must answer; Ray itself would try for two minutes."""
SEEN = 60.0
"""Seconds after which another node's file shows in a shared folder at the latest: NFS remembers what wasn't there."""
AUTO = "auto"
ADVICE = (
    "Start one with `ray start --head` here and `ray start --address=HOST:PORT` on other machines, "
    "name another with --ray-address HOST:PORT, or use --engine local"
)


class RayEngine(Engine):
    """Runs the jobs of a phase on a Ray cluster, at most `workers` at a time (None: as many as it has room for).

    A context that holds the connection; entering raises UsageError without Ray or a cluster.
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import ray

        ray.shutdown()

    def _run_jobs(self, jobs: list[Job], phase: Phase) -> list[MapnetError]:
        import ray

        queue, failures, attempts = deque(jobs), [], Counter[str]()
        inbox = _open_inbox()
        task = ray.remote(max_retries=0, **self._demands(phase))(_run)
        with _cancelled_with_us(self.console) as flying:
            while queue or flying:
                while queue and len(flying) < self.limit:
                    job = queue.popleft()
                    attempts[job.key] += 1
                    flying[task.remote(job, self.artifacts.root, Path.cwd(), inbox)] = job
                ended, _ = ray.wait(list(flying), num_returns=len(flying), timeout=LOOK)
                for key, progress in _news(inbox):
                    show(self.console, key, progress)
                for reference in ended:
                    job = flying.pop(reference)
                    failure = self._outcome(job, reference)
                    if failure is None:
                        self.console.advance(job.key)
                    elif not isinstance(failure, _Lost):
                        failures.append(failure)
                    elif attempts[job.key] < ATTEMPTS:
                        self.console.warn(f"{failure} at {job.key}; trying it again")
                        queue.append(job)
                    else:
                        failures.append(MapnetError(f"{job.key}: {failure}, {ATTEMPTS} times"))
        return failures

    def _outcome(self, job: Job, reference: Any) -> MapnetError | None:
        """Returns why an ended task failed, None if its marker stands, _Lost if it did not end by itself."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            node, failure = ray.get(reference)
        except RayTaskError as error:  # before mapnet's own code ran: mapnet isn't installed on that node
            return MapnetError(f"{job.key} can't start on a node of the cluster:\n{error}")
        except RayError as error:
            return _Lost(f"a worker or its node died ({type(error).__name__})")
        if isinstance(failure, MapnetError):
            return failure
        if not _shows(job, self.artifacts):
            raise UsageError(
                f"{job.key}: node {node} has finished it, but its marker is not in {self.artifacts.root} here; "
                f"--artifacts must be a folder that all nodes share"
            )
        return None

    def _demands(self, phase: Phase) -> dict[str, float]:
        import ray

        nodes = [node["Resources"] | {"id": node["NodeID"]} for node in ray.nodes() if node["Alive"]]
        memory = 0
        if phase.gpu_bytes and not phase.jobs_per_gpu and (with_gpus := [n["id"] for n in nodes if n.get("GPU")]):
            memory = _least_gpu_memory(with_gpus)
            if not memory:
                self.console.warn("nvidia-smi doesn't say how much memory the GPUs have: one job a GPU at a time")
        return demands(phase, nodes, memory)


def demands(phase: Phase, nodes: list[dict[str, Any]], gpu_memory: int) -> dict[str, float]:
    """Returns what Ray sets aside for a job: cores, at most those of the largest node, and (a part of) GPUs.

    `nodes` are the resources of the cluster's nodes, `gpu_memory` the bytes of the smallest GPU (0: not known).
    Without any GPU in the cluster a job asks for none. Raises UsageError if no node has enough: Ray would wait for one.
    """
    gpus = 0.0
    if any(node.get("GPU") for node in nodes):
        # rounded down to what Ray counts in, so that all of them fit
        gpus = phase.gpus or (phase.gpu_bytes and 10_000 // sharing(phase, gpu_memory) / 10_000)
    able = [node.get("CPU", 0) for node in nodes if node.get("GPU", 0) >= gpus]
    if not able:
        raise UsageError(f"{phase.name}: no node of the cluster has the {gpus} GPUs that one {phase.unit} takes")
    return {"num_cpus": min(phase.threads, max(able)), "num_gpus": gpus}


def _least_gpu_memory(nodes: list[str]) -> int:
    """Returns the bytes of memory of the smallest GPU of these nodes, 0 if not all of them say it."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(num_cpus=0)(gpu_listing)
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    try:
        return min(map(least_memory, ray.get([asked.options(scheduling_strategy=node).remote() for node in there])))
    except RayError:  # one has just died
        return 0


class _Lost(MapnetError):
    """A task ended without an outcome: not the job's fault."""


class _Inbox:
    """An actor beside the driver that keeps what tasks report until the driver asks."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, Progress]] = []

    def put(self, key: str, progress: Progress) -> None:
        self._letters.append((key, progress))

    def take(self) -> list[tuple[str, Progress]]:
        letters, self._letters = self._letters, []
        return letters


def _open_inbox() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Inbox).remote()


def _news(inbox: Any) -> list[tuple[str, Progress]]:
    """Returns what tasks have reported; nothing while the inbox starts again: no job depends on it."""
    import ray
    from ray.exceptions import RayError

    try:
        return cast(list[tuple[str, Progress]], ray.get(inbox.take.remote()))
    except RayError:
        return []


def _run(job: Job, root: Path, folder: Path, inbox: Any) -> tuple[str, MapnetError | None]:
    """One try of a job, on some node; returns the node's address and the failure, None if the marker stands."""
    import ray
    from ray.exceptions import RayError

    node = ray.util.get_node_ip_address()
    # Ray cancels a task by SIGINT, which is ignored where `ray start` was a shell's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError):  # where relative inputs are; a job that misses one says so
        os.chdir(folder)
    artifacts = Artifacts(root)
    if not root.is_dir() or (missing := missing_needs(job, artifacts)):
        lack = f"{root} does not exist on node {node}" if not root.is_dir() else f"{', '.join(missing)} of {root}"
        return node, UsageError(f"{job.key} misses its inputs on node {node}: {lack}; share the folder with all nodes")

    def report(progress: Progress) -> None:
        sent = inbox.put.remote(job.key, progress)
        if progress.warning:
            with suppress(RayError):
                ray.get(sent)  # so that it can't come after the job's end

    try:
        failure = attempt(job, artifacts, throttled(report))
    except Interrupted:
        failure = _Lost(f"node {node} was stopped")
    if failure is None or isinstance(failure, _Lost):
        return node, failure
    return node, type(failure)(f"{failure} [node {node}]")


@contextmanager
def _cancelled_with_us(console: Console) -> Iterator[dict[Any, Job]]:
    """Yields where the tasks under way stand, by their references; those that do when the block raises are stopped."""
    import ray

    flying: dict[Any, Job] = {}
    try:
        yield flying
    except KeyboardInterrupt:
        console.note(STOPPING)
        raise Interrupted(STOPPED) from None
    finally:
        for reference in flying:
            ray.cancel(reference)
        if flying:
            ray.wait(list(flying), num_returns=len(flying), timeout=GRACE)


def _shows(job: Job, artifacts: Artifacts) -> bool:
    """Returns whether the job's marker stands here, waiting for a shared folder to show it."""
    deadline = time.monotonic() + SEEN
    while not is_done(job, artifacts):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
        with suppress(OSError):
            list(artifacts.path(job.key).parent.iterdir())  # makes NFS look again
    return True


def connect(address: str) -> None:
    """Connects this process to a running cluster; raises UsageError, in seconds, if there is none. Starts none."""
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs Ray: pip install 'mapnet[ray]', or use --engine local") from None
    address = _listening(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError:
        raise UsageError(f"--engine ray: no cluster runs on this machine. {ADVICE}") from None
    except (RuntimeError, ValueError, SystemExit) as error:  # another version; what answers isn't Ray
        raise UsageError(f"--engine ray: {address} is no cluster to work with ({error}). {ADVICE}") from None
    finally:
        for number, handler in handlers.items():  # Ray has put its own there
            signal.signal(number, handler)


def _listening(address: str) -> str:
    """Returns the address to connect to, or "auto" if only Ray can find one; raises UsageError if nobody answers.

    "auto" is what Ray takes it for: RAY_ADDRESS, or what `ray start` has left on this machine.
    """
    left = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or (left.read_text(encoding="utf-8") if left.exists() else AUTO)
    if address == AUTO:
        return address
    host, _, port = address.strip().rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER):
            return address.strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--engine ray: no cluster answers at {address!r} ({error}). {ADVICE}") from None
