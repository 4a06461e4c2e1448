"""The processes that train one model together: which one this is, what it may use, and what they tell each other.

torchrun, or srun under Slurm, starts the processes and numbers them through the environment. A
process that nobody launched is a world of one, and everything here is then free. torch is imported
by what needs it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from mapnet_cli.core import UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; longer than any validation or checkpoint."""


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class DistContext:
    """This process's number among `size`, and its number on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def all_reduce_sum_(self, tensor: "Tensor") -> "Tensor":
        """Adds up a tensor over all processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max_(self, tensor: "Tensor") -> "Tensor":
        """Takes each element's largest value over all processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def any(self, flag: bool) -> bool:
        """Returns whether any process says so. A few bytes between the hosts: no GPU waits for it."""
        if self.size == 1:
            return flag
        import torch

        return bool(self.all_reduce_max_(torch.tensor(int(flag))))

    def broadcast(self, value: T) -> T:
        """Returns what the first process passed; the others' values don't matter."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]


ALONE = DistContext()


def launched(environ: Mapping[str, str] = os.environ) -> DistContext | None:
    """Returns this process's place if torchrun or srun started it as one of several, else None.

    Inside a Slurm batch script nothing is launched yet: only srun numbers the tasks of a step.
    """
    if environ.get("WORLD_SIZE", "1") not in ("", "1") and "RANK" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif environ.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1"):
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return None
    try:
        return DistContext(*(int(environ[name]) for name in names))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"this looks like one of several processes, but {', '.join(names)} are not all set to numbers ({error}); "
            f"start them with torchrun or srun, or one process with --processes"
        ) from None


def restarted(environ: Mapping[str, str] = os.environ) -> bool:
    """Returns whether the launcher itself started this command again."""
    return any(environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def current() -> DistContext:
    """Returns this process's place in the group that it has joined, or a world of one."""
    import torch.distributed as dist

    place = launched()
    return place if place is not None and dist.is_available() and dist.is_initialized() else ALONE


@contextmanager
def joined() -> Iterator[DistContext]:
    """Joins the launched processes for as long as the block runs: NCCL between GPUs, gloo between CPUs."""
    import torch
    import torch.distributed as dist

    place = launched()
    if place is None:
        yield ALONE
        return
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"tcp://{rendezvous(os.environ)}",
        rank=place.rank,
        world_size=place.size,
        timeout=TIMEOUT,
    )
    yield place
    # Not after an error: what another process's death has left unfinished would be waited for.
    dist.destroy_process_group()


def rendezvous(environ: Mapping[str, str]) -> str:
    """Returns host:port where the processes meet: MASTER_ADDR and MASTER_PORT, or from Slurm's node list."""
    host = environ.get("MASTER_ADDR") or first_host(environ.get("SLURM_STEP_NODELIST", "localhost"))
    port = environ.get("MASTER_PORT") or 20_000 + int(environ.get("SLURM_JOB_ID", "0")) % 20_000
    return f"{host}:{port}"


def first_host(nodes: str) -> str:
    """Returns the first host of a Slurm node list: "gpu[03-07,9],x1" gives "gpu03"."""
    found = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes
