"""Rank, world size and collectives of the processes that train one model together.

torchrun, or srun under Slurm, starts the processes and sets their ranks in the environment. Without a launcher the
world size is 1 and the collectives do nothing. torch is imported only by the functions that need it.
"""

import json
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
TIMEOUT = timedelta(minutes=30)  # timeout of collectives; longer than any validation or checkpoint


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class DistContext:
    """Rank of this process, number of processes, and rank on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def all_reduce_sum_(self, tensor: "Tensor") -> "Tensor":
        """Sums a tensor over all processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max_(self, tensor: "Tensor") -> "Tensor":
        """Takes the elementwise maximum of a tensor over all processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def any(self, flag: bool) -> bool:
        """Returns whether `flag` is true in any process. Runs on the CPU, so it doesn't synchronise the GPUs."""
        if self.size == 1:
            return flag
        import torch

        return bool(self.all_reduce_max_(torch.tensor(int(flag))))

    def broadcast(self, value: T) -> T:
        """Returns rank 0's value, one that JSON can express; the values of other ranks are ignored."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        data = json.dumps(value if self.rank == 0 else None).encode()
        size = int(self.all_reduce_max_(torch.tensor(len(data))))
        box = torch.tensor(list(data.ljust(size)), dtype=torch.uint8)
        dist.broadcast(box, 0)
        found: T = json.loads(bytes(box.tolist()))
        return found


ALONE = DistContext()


def launched(environ: Mapping[str, str] = os.environ) -> DistContext | None:
    """Returns this process's context if torchrun or srun started it as one of several, else None.

    Slurm's batch script itself doesn't count as launched: only srun sets the ranks of a step's tasks.
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
            f"this looks like one of several launched processes, but {', '.join(names)} are not all set to integers "
            f"({error}); start the processes with torchrun or srun, or start a single one with --processes N"
        ) from None


def local_processes() -> int:
    """Returns the number of processes that torchrun has started on this machine, at least 1."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def restarted() -> bool:
    """Returns whether the launcher (torchrun or Slurm) has restarted this command."""
    return any(os.environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def current() -> DistContext:
    """Returns this process's context if it has joined a process group, else ALONE."""
    import torch.distributed as dist

    context = launched()
    return context if context is not None and dist.is_available() and dist.is_initialized() else ALONE


@contextmanager
def joined() -> Iterator[DistContext]:
    """Context manager that joins the process group of the launched processes: NCCL for GPUs, gloo for CPUs."""
    import torch
    import torch.distributed as dist

    context = launched()
    if context is None:
        yield ALONE
        return
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"tcp://{rendezvous(os.environ)}",
        rank=context.rank,
        world_size=context.size,
        timeout=TIMEOUT,
    )
    yield context
    # Skipped after an error: it would wait for collectives that a dead process left unfinished.
    dist.destroy_process_group()


def rendezvous(environ: Mapping[str, str]) -> str:
    """Returns the rendezvous address host:port from MASTER_ADDR and MASTER_PORT, or else from Slurm's variables."""
    host = environ.get("MASTER_ADDR") or first_host(environ.get("SLURM_STEP_NODELIST", "localhost"))
    port = environ.get("MASTER_PORT") or 20_000 + int(environ.get("SLURM_JOB_ID", "0")) % 20_000
    return f"{host}:{port}"


def first_host(nodes: str) -> str:
    """Returns the first host of a Slurm node list: "gpu[03-07,9],x1" gives "gpu03"."""
    found = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes
