"""Jobs (units of work) and the engines that run them: worker processes, a Ray cluster, torchrun."""

from mapnet_cli.jobs.distributed import ALONE, DistContext, cores, current, joined, launched
from mapnet_cli.jobs.engine import Engine, LaunchedEngine
from mapnet_cli.jobs.job import (
    Job,
    Output,
    Phase,
    Progress,
    ProgressCallback,
    StageProgress,
    is_done,
    library_versions,
    run_job,
    show,
)
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.jobs.ray import RayEngine
from mapnet_cli.jobs.resources import local_processes

__all__ = [
    "ALONE", "DistContext", "Engine", "Job", "LaunchedEngine", "LocalEngine", "Output", "Phase", "Progress",
    "ProgressCallback", "RayEngine", "StageProgress", "cores", "current", "is_done",
    "joined", "launched", "library_versions", "local_processes", "run_job", "show",
]  # fmt: skip
