"""Jobs under an existing torchrun or srun: every process runs every job, together, one job after the other."""

from collections.abc import Sequence
from functools import partial

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import ProcessError
from mapnet_cli.jobs.distributed import DistContext, restarted
from mapnet_cli.jobs.job import Job, Phase, Progress, is_done, missing_needs, run_job, show


class LaunchedEngine:
    """Runs phases in all processes of a world. The first one decides what is open, reports and publishes.

    The artifact directory must be the same for all of them.
    """

    def __init__(self, artifacts: Artifacts, console: Console, world: DistContext, force: bool = False) -> None:
        self.artifacts = artifacts
        self.console = console
        self.world = world
        self.force = force

    def run(self, phases: Sequence[Phase]) -> None:
        for phase in phases:
            open_jobs = [job for job in phase.jobs if self.force or not is_done(job, self.artifacts)]
            keys = set(self.world.broadcast([job.key for job in open_jobs]))
            self.console.begin(phase.name, phase.unit, len(phase.jobs), len(phase.jobs) - len(keys))
            try:
                for job in (job for job in phase.jobs if job.key in keys):
                    self._run(job)
            finally:
                self.console.end()

    def _run(self, job: Job) -> None:
        if missing := missing_needs(job, self.artifacts):
            raise ProcessError(
                f"{job.key} needs {', '.join(missing)}, which process {self.world.rank} doesn't find in "
                f"{self.artifacts.root}; make it first, in a folder that all machines share"
            )
        if self.world.rank == 0:
            if self.force and not restarted():  # a launcher's own restart keeps what there is
                self.artifacts.discard(job.key)
            run_job(job, self.artifacts, partial(show, self.console, job.key))
        else:
            job.fn(self.artifacts, _silent, **job.args)
        self.console.advance(job.key)


def _silent(progress: Progress) -> None:
    pass
