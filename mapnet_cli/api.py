"""mapnet from Python: load a config, run stages, read results, load encoders, draw masks (docs/python.md).

Errors are `MapnetError`s with the messages of the command line. Shapes: B texts, L positions, H hidden size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mapnet_cli.cli import stages
from mapnet_cli.config import Config, Method
from mapnet_cli.config.loading import resolve
from mapnet_cli.core import Artifacts, Checkpoint, Console, CorpusManifest, MapnetError, UsageError, did_you_mean
from mapnet_cli.huggingface.export import exported_tokenizer
from mapnet_cli.lineage import Lineage, find_milestone
from mapnet_cli.masking import STRATEGIES, CorpusFacts, MaskNoise, draw_masks, maskable_positions, uniform_log_q
from mapnet_cli.model import AnyPretrainingModel, PretrainingModel, build_model, masked_log_softmax
from mapnet_cli.report.files import flat_rows
from mapnet_cli.report.load import load_results
from mapnet_cli.report.scores import score
from mapnet_cli.text import CLS, PAD, SEP
from mapnet_cli.training import load_checkpoint

if TYPE_CHECKING:
    import pandas

__all__ = ["Encoder", "MapnetError", "MaskedSentence", "Project", "load"]


class Encoder(nn.Module):
    """A pretrained encoder, with its tokenizer, in evaluation mode on the CPU. Takes plain text."""

    def __init__(self, encoder: nn.Module, tokenizer: Tokenizer, record: Checkpoint) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.record = encoder, tokenizer, record
        self.eval()

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns the hidden states [B, L, H] and a mask [B, L] that is False at padding."""
        encoded = self.tokenizer.encode_batch(list(texts))
        mask_BL = torch.tensor([one.attention_mask for one in encoded]).bool()
        return self.encoder(torch.tensor([one.ids for one in encoded]), mask_BL), mask_BL

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Returns the mean hidden state of each text, [B, H]."""
        hidden_BLH, mask_BL = self(texts)
        kept_BL1 = mask_BL[:, :, None]
        mean_BH: Tensor = (hidden_BLH * kept_BL1).sum(dim=1) / kept_BL1.sum(dim=1)
        return mean_BH


@dataclass(frozen=True)
class MaskedSentence:
    """A sentence's tokens, the probability of each to be drawn first, and for each draw whether it is masked."""

    tokens: list[str]
    probability: list[float]
    masked: list[list[bool]]


@dataclass(frozen=True)
class Project:
    """A config and an artifact directory. Use `load` to make one."""

    config: Config
    artifacts: Artifacts
    name: str
    """The config file's name without suffix, or the recipe."""

    @property
    def lineage(self) -> Lineage:
        return Lineage(self.config, self.artifacts)

    def run(self, *names: str, workers: int = 0, quiet: bool = True) -> None:
        """Runs stages, by default all, skipping finished work, like the commands of these names.

        With `workers`, jobs run in parallel processes; a script then needs `if __name__ == "__main__":`.
        """
        if unknown := next((name for name in names if name not in stages.STAGES), None):
            raise UsageError(f"there is no stage {unknown!r}{did_you_mean(unknown, stages.STAGES, list_all=True)}")
        console = Console(quiet=quiet)
        stages.run_stages(names or tuple(stages.STAGES), self.lineage, console, workers, False, None, self.name)

    def status(self) -> list[dict[str, Any]]:
        """Returns the rows of `mapnet status --json`."""
        return [row for row, _ in stages.status(self.lineage)]

    def results(self) -> list[dict[str, Any]]:
        """Returns the rows of the report's results.csv: method, seed, step, task, metric, value, standard error, n."""
        with TemporaryFile() as runs:
            results = load_results(self.lineage, runs)
        return list(flat_rows(results, score(results)))

    def frame(self) -> "pandas.DataFrame":
        """Returns the results as a pandas data frame."""
        import pandas

        return pandas.DataFrame(self.results())

    def encoder(self, method: str | None = None, seed: int | None = None, step: int | None = None) -> Encoder:
        """Returns a checkpoint's encoder; by default of the only method, its first seed, its last milestone."""
        row = find_milestone(self.lineage, method, seed, step)
        tokenizer = self._tokenizer(self.config.encoder.max_length)
        tokenizer.enable_padding(pad_id=PAD)
        return Encoder(self._model(row).encoder, tokenizer, row)

    @torch.no_grad()
    def draw_masks(self, sentence: str, strategy: str, draws: int = 1, seed: int = 0) -> MaskedSentence:
        """Draws masks for a sentence, with a method of the config or with a strategy and its default settings.

        A proposal that is learned is that of the method's first seed and last milestone. The sentence is
        tokenised as the corpus is, so the corpus must have been prepared; a long one is truncated to
        proposal.max_length. The same seed gives the same masks.
        """
        method = self.config.method.get(strategy)
        if method is None and strategy in STRATEGIES:
            method = Method(strategy=strategy)
        if method is None:
            hint = did_you_mean(strategy, [*self.config.method, *STRATEGIES])
            raise UsageError(f"no method or strategy {strategy!r}{hint}")
        encoded = self._tokenizer(self.config.proposal.max_length).encode(sentence)
        tokens_BL = torch.tensor([encoded.ids]).expand(draws, -1)
        maskable_BL = maskable_positions(tokens_BL)
        context = STRATEGIES[method.strategy].prepare(CorpusFacts(self.artifacts, self._manifest()))
        log_q_BL = None
        if method.learned:
            model = self._model(find_milestone(self.lineage, strategy, None, None, "strategy"))
            assert isinstance(model, PretrainingModel), "ELECTRA has no proposal"
            log_q_BL = model.propose(tokens_BL, None, maskable_BL)
        elif context.log_weight_V is not None:
            log_q_BL = masked_log_softmax(context.log_weight_V.float()[tokens_BL], maskable_BL)
        noise, visit_B = MaskNoise.draw(torch.Generator().manual_seed(seed), draws, tokens_BL.shape[1]), None
        if STRATEGIES[method.strategy].successive:
            visit_B, noise = torch.arange(draws), noise.map(lambda values: values[:1].expand_as(values))
        masks = draw_masks(method, tokens_BL, noise, context, log_q_BL, visit_B)
        q_L = (uniform_log_q(maskable_BL) if log_q_BL is None else log_q_BL)[0].exp()
        shown = [place for place, token in enumerate(encoded.ids) if token not in (CLS, SEP)]
        return MaskedSentence(
            [encoded.tokens[place] for place in shown], q_L[shown].tolist(), masks.masked(tokens_BL)[:, shown].tolist()
        )

    def _manifest(self) -> CorpusManifest:
        return self.artifacts.read(self.lineage.manifest, CorpusManifest)

    def _tokenizer(self, max_length: int) -> Tokenizer:
        tokenizer = exported_tokenizer(self.artifacts.path(self._manifest().tokenizer), self.config.corpus)
        tokenizer.enable_truncation(max_length)
        return tokenizer

    def _model(self, row: Checkpoint) -> AnyPretrainingModel:
        self.artifacts.verify(row.path)
        model = build_model(self.config, row.method, self._manifest().vocab_size)
        model.load_state_dict(load_checkpoint(self.artifacts.path(row.path))[0])
        return model.eval()


def load(
    config: str | Path | None = None, *, recipe: str | None = None, settings: Mapping[str, Any] | None = None,
    artifacts: str | Path = "artifacts",
) -> Project:  # fmt: skip
    """Returns the project of a config file or recipe (by default demo), as `mapnet --config --recipe --set` resolve it.

    `settings` maps keys to values: {"pretrain.steps": 100}. MAPNET_ variables count, too. Creates nothing.
    """
    file = None if config is None else Path(config)
    overrides = [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
    found = resolve(recipe, file, overrides).config
    return Project(found, Artifacts(Path(artifacts)), file.stem if file else found.recipe or "custom")
