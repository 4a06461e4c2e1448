"""`mapnet minimal-pairs`: one job per encoder and set of minimal pairs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapnet_cli import core
from mapnet_cli.config import Config, Transformer
from mapnet_cli.config import MinimalPairs as Options
from mapnet_cli.jobs import Job, Output, Phase, Progress, ProgressCallback, Stage, is_done
from mapnet_cli.lineage import Lineage, PairsRun
from mapnet_cli.minimal_pairs.readers import read_paradigms

if TYPE_CHECKING:
    from mapnet_cli.minimal_pairs.scoring import Sentence

FLOAT = 4


@dataclass(frozen=True)
class MinimalPairs(Stage):
    """The minimal-pairs stage, see `jobs.Stage`. It has no jobs if minimal_pairs.data is empty."""

    lineage: Lineage
    preload = ("torch", "mapnet_cli.minimal_pairs.scoring")

    def check_data(self, force: bool) -> None:
        """Raises InputError if data to be scored has an invalid row."""
        todo = (job for job in self._jobs() if force or not is_done(job, self.lineage.artifacts))
        for location in dict.fromkeys(job.location for job in todo):
            read_paradigms(location)

    def plan(self, workers: int) -> list[Phase]:
        """Returns one phase with all jobs. Raises InputError if data is missing and was never scored."""
        config, jobs = self.lineage.config, list(self._jobs())
        if not jobs:
            return []
        sizes = {self.lineage.sizes(job.pairs_run.method) for job in jobs}
        memory = 0 if config.minimal_pairs.device == "cpu" else max(_gpu_bytes(config, *size) for size in sizes)
        threads = config.minimal_pairs.threads
        return [Phase("minimal pairs", jobs, "record", threads=threads, gpu_bytes=memory)]

    def forecast(self, workers: int) -> list[str]:
        """Returns the lines of `--dry-run`: pairs of each data set, and hours at a rate measured now."""
        from mapnet_cli.minimal_pairs.scoring import estimate

        options, lines = self.lineage.config.minimal_pairs, []
        todo = [job for job in self._jobs() if not is_done(job, self.lineage.artifacts)]
        for name in dict.fromkeys(job.pairs_run.data for job in todo):
            paradigms = read_paradigms(options.sets[name], options.pairs)
            runs = Counter(self.lineage.sizes(job.pairs_run.method) for job in todo if job.pairs_run.data == name)
            seconds = sum(count * estimate(paradigms, *size, options) for size, count in runs.items())
            pairs = sum(len(paradigm.pairs) for paradigm in paradigms)
            lines.append(
                f"{name}: {pairs:,} pairs in {len(paradigms)} paradigms, {sum(runs.values()):,} encoders: about "
                f"{core.format_duration(seconds)} one at a time (rate measured now)"
            )
        return lines

    def _jobs(self) -> Iterator["ScorePairs"]:
        lineage, config = self.lineage, self.lineage.config
        for key, run, artifact in lineage.pair_scores():
            own = key if lineage.tokenizer_of(run.method) else ""
            yield ScorePairs(
                artifact=artifact, needs=(key,), pairs_run=run, weights=key, encoder=lineage.sizes(run.method)[0],
                tokenizer=own or lineage.manifest, lowercase="none" if own else config.corpus.preparation,
                location=config.minimal_pairs.sets[run.data], content=lineage.pair_data[run.data],
                settings=lineage.pair_settings, options=config.minimal_pairs,
            )  # fmt: skip


def _gpu_bytes(config: Config, encoder: Transformer, vocab_size: int) -> int:
    """Returns a rough upper bound on a job's GPU memory in bytes: weights, hidden states and logits, in float32."""
    hidden, ffn = encoder.hidden, encoder.ffn
    weights = (vocab_size + encoder.max_length) * hidden + encoder.layers * (4 * hidden + 2 * ffn) * hidden
    # a masked copy has at least three tokens, and its logits exist up to three times
    activations = config.minimal_pairs.batch_tokens * (10 * hidden + 2 * ffn + vocab_size)
    return core.CUDA_BYTES + FLOAT * (weights + activations)


@dataclass(frozen=True, kw_only=True)
class ScorePairs(Job):
    """Scores one encoder with its MLM head on one set of minimal pairs."""

    pairs_run: PairsRun
    weights: str  # key of the checkpoint or import; of the corpus's manifest for random weights
    encoder: Transformer
    tokenizer: str  # key of the corpus's manifest or import that provides the tokenizer
    lowercase: str  # as `Corpus.preparation`
    location: Path
    content: str  # hash of the data
    settings: dict[str, Any]
    options: Options

    def run(self, artifacts: core.Artifacts, progress: ProgressCallback) -> Output:
        import torch

        from mapnet_cli.minimal_pairs.scoring import encoded_pairs, judge, load_model, pseudo_log_likelihoods
        from mapnet_cli.text import verified_tokenizer
        from mapnet_cli.training import choose_device, device_name

        options = self.options
        torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        model, checksum = load_model(artifacts, self.pairs_run, self.weights, self.encoder)
        model.to(device)
        tokenizer = verified_tokenizer(artifacts, self.tokenizer)
        pairs = encoded_pairs(self.location, self.content, options.pairs, tokenizer, self.lowercase)

        def score(sentences: Sequence["Sentence"]) -> list[float]:
            total = sum(sentence.scored for sentence in sentences)
            return pseudo_log_likelihoods(
                model, sentences, options.whole_words, options.batch_tokens, options.precision,
                lambda done: progress(Progress(done, total, "masked tokens")),
            )  # fmt: skip

        try:
            paradigms = judge(pairs, model.encoder.config.max_length, score)
        except core.DivergedError as error:
            raise core.DivergedError(f"{self.key}: {error}") from None
        sentences = [sentence for _, encoded in pairs for pair in encoded for sentence in pair]
        accuracy, standard_error = core.mean_accuracy(paradigms)
        row = core.PairScores(
            **asdict(self.pairs_run), checkpoint=checksum, settings=self.settings, accuracy=accuracy,
            standard_error=standard_error, paradigms=paradigms, device=device_name(device),
            unknown_share=sum(s.unknown for s in sentences) / max(1, sum(s.scored for s in sentences)),
        )  # fmt: skip
        return Output([], row)
