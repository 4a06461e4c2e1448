"""`mapnet variance`: Theorem 1's two variances at a checkpoint, for several strategies side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, Checkpoint, Console, UsageError, image, publishing, write_json, write_text
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback, is_done, library_versions, run_job, show
from mapnet_cli.lineage import Lineage, code_of_method, variance_id
from mapnet_cli.variance.candidates import Candidate, find_candidates
from mapnet_cli.variance.gradients import saved_at
from mapnet_cli.variance.positions import PositionFacts, alignment, correlations, measure_positions, norms_by_loss
from mapnet_cli.variance.results import NORMS, Clipping, Measured, VarianceReport, Variances
from mapnet_cli.variance.setup import build_setup
from mapnet_cli.variance.statistics import Samples, gram, jackknife, leave_one_out, leave_one_out_pairs, ratio
from mapnet_cli.variance.table import document, variance_chart

MIN_SENTENCES = 4


@dataclass(frozen=True)
class Settings:
    """Sample sizes of a measurement."""

    sentences: int
    masks: int  # per sentence and strategy, in groups of `visits`
    visits: int

    def check(self) -> None:
        """Raises UsageError if the sample sizes don't allow estimates."""
        if self.sentences < MIN_SENTENCES:
            raise UsageError(f"--sentences: at least {MIN_SENTENCES} are needed for standard errors")
        if self.visits < 1 or self.masks < 2 * self.visits or self.masks % self.visits:
            raise UsageError(
                f"--masks ({self.masks}) must be a multiple of --visits ({self.visits}) and at least twice as large: "
                "visits within a group may be dependent, so variances are estimated from whole groups"
            )


def measure_variance(
    lineage: Lineage, console: Console, names: Sequence[str], milestone: Checkpoint, settings: Settings,
    force: bool = False,
) -> tuple[VarianceReport, Path]:  # fmt: skip
    """Measures the milestone unless that is done; returns (report, its folder). Raises UsageError and DamagedError."""
    settings.check()
    artifacts = lineage.artifacts
    candidates = find_candidates(lineage, milestone, names)
    run = artifacts.path(lineage.pretraining(milestone.method, milestone.pretrain_seed).key)
    what = {"settings": asdict(settings), "subjects": [_identity(lineage, each) for each in candidates]}
    artifact = variance_id(milestone, what | {"saved moments": saved_at(run, milestone.step)})
    if force:
        artifacts.discard(artifact.key)
    job = MeasureVariance(
        artifact=artifact, config=lineage.config, milestone=milestone, candidates=tuple(candidates), settings=settings
    )
    if not is_done(job, artifacts):
        with console.phase("variance", "measurement", 1, 0):
            run_job(job, artifacts, partial(show, console, artifact.key))
    artifacts.verify(artifact.key)
    return artifacts.read(artifact.key, VarianceReport), artifacts.path(artifact.key)


def _identity(lineage: Lineage, candidate: Candidate) -> list[Any]:
    """Returns the settings and inputs that a strategy's draws depend on, as plain JSON values."""
    how, source = candidate.method.results_view(), candidate.source
    del how["steps"], how["seeds"]  # these affect training, not the measurement
    weights = lineage.artifacts.require(source.path).fingerprint if source else ""
    return [candidate.name, how, weights, *code_of_method(candidate.method)]


@dataclass(frozen=True, kw_only=True)
class MeasureVariance(Job):
    """Measures all strategies and writes variance.json, variance.md and variance.png."""

    config: Config
    milestone: Checkpoint
    candidates: tuple[Candidate, ...]
    settings: Settings

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        row, settings, batch_size = self.milestone, self.settings, self.config.pretrain.batch_size
        reference, *others = self.candidates
        setup = build_setup(Lineage(self.config, artifacts), row, reference.method, settings.sentences)
        total, done = settings.sentences * (len(self.candidates) + 1), 0

        def step(note: str) -> None:
            nonlocal done
            done += 1
            progress(Progress(done, total, note))

        def sample(candidate: Candidate) -> Samples:
            return setup.sample(candidate, settings.masks, settings.visits, partial(step, candidate.name))

        uniform = sample(reference)
        facts, whole = list[PositionFacts](), any(each.oracle for each in others)
        for number, tokens_L in enumerate(setup.sentences):
            where = uniform.means_SD, number, tokens_L
            facts.append(measure_positions(setup.instrument, setup.model, reference.method, *where, whole))
            step("single positions")
        measured = [compare(reference, uniform, uniform, batch_size)]
        for candidate in others:
            loaded = setup.loaded(candidate, facts)
            measured.append(compare(loaded, sample(loaded), uniform, batch_size))
        project, versions = setup.instrument.project, library_versions()
        parts: dict[str, str | int] = {
            "method": row.method, "seed": row.pretrain_seed, "step": row.step, "weights": row.fingerprint[:8],
            "measurement": self.fingerprint[:8],
        }  # fmt: skip
        parts |= {name: versions[name] for name in ("mapnet", "torch") if name in versions}
        found = VarianceReport(
            method=row.method, pretrain_seed=row.pretrain_seed, step=row.step, checkpoint=row.fingerprint,
            parameters=setup.instrument.gradients.size, **asdict(settings), second_moments=setup.second_moments,
            projection=None if project.exact else project.dimensions,
            projection_error=project.relative_error, measured=measured, correlations=correlations(facts),
            loss_bins=norms_by_loss(facts),
            alignment={norm: alignment([fact.products[norm] for fact in facts]) for norm in NORMS},
            signature="|".join(f"{name}:{value}" for name, value in parts.items()),
        )  # fmt: skip
        folder = artifacts.path(self.key)
        with publishing(folder) as temporary:
            temporary.mkdir()
            write_json(temporary / "variance.json", found.to_json())
            write_text(temporary / "variance.md", document(found))
            (temporary / "variance.png").write_bytes(image(variance_chart(found), found.signature, "png"))
        return Output([folder / name for name in ("variance.json", "variance.md", "variance.png")], found)


def compare(candidate: Candidate, samples: Samples, uniform: Samples, batch_size: int) -> Measured:
    """Returns the results of a strategy, given samples of uniform masks on the same sentences and their batch size."""
    method, drawing = candidate.method, candidate.method.drawing
    ordered = bool(candidate.log_q) and drawing.sampler == "gumbel"  # the ratio is defined for sequential draws
    return Measured(
        name=candidate.name,
        strategy=method.strategy,
        sampler=drawing.sampler if candidate.log_q else "",
        estimator=drawing.estimator,
        mask_rate=method.mask_rate,
        batch_size=method.batch_factor * batch_size,
        proposal=candidate.proposal,
        variances={norm: _variances(samples, uniform, norm, batch_size, method.batch_factor) for norm in NORMS},
        clipping=_clipping(samples.log_ratio_SM.double(), drawing.ratio_clip) if ordered else None,
    )


def _variances(samples: Samples, uniform: Samples, norm: str, batch_size: int, factor: int) -> Variances:
    here, there = samples.moments[norm], uniform.moments[norm]
    mask, sentence, visits = here.mask_variance(), here.sentence_variance(), here.visits_variance()
    difference = leave_one_out_pairs(gram(samples.means_SD[norm] - uniform.means_SD[norm]))
    return Variances(
        mask=jackknife(mask),
        sentence=jackknife(sentence),
        mask_share=ratio(mask, here.variance()),
        visits=jackknife(visits),
        mask_to_uniform=ratio(mask, there.mask_variance()),
        visits_to_uniform=ratio(visits, there.mask_variance()),
        difference=jackknife(difference),
        bias=ratio(difference, there.mean_square()),
        noise_scale=ratio(here.variance(), here.mean_square()),
        error_to_uniform=ratio(here.variance() / (factor * batch_size) + difference, there.variance() / batch_size),
    )


def _clipping(log_ratio_SM: Tensor, clip: float) -> Clipping:
    low, high = max(1 - clip, 0.0), 1 + clip
    ratio_SM = log_ratio_SM.exp()
    outside_S = ((ratio_SM < low) | (ratio_SM > high)).double().mean(dim=1)
    share_SM = log_ratio_SM.softmax(dim=1)
    effective_S = 1 / share_SM.square().sum(dim=1) / share_SM.shape[1]
    return Clipping(
        clip=clip, clipped=jackknife(leave_one_out(outside_S)), effective=jackknife(leave_one_out(effective_S))
    )
