"""Jobs (units of work) and the engines that run them: worker processes, a Ray cluster, torchrun."""

# fmt: off
# isort: off
from mapnet_cli.jobs.distributed import ALONE, DistContext, cores, current, joined, launched, local_processes
from mapnet_cli.jobs.engine import Engine, LaunchedEngine
from mapnet_cli.jobs.job import (
    Job, Output, Phase, Progress, ProgressCallback, Stage, StageProgress, is_done, library_versions, run_job, show,
)
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.jobs.ray import RayEngine
