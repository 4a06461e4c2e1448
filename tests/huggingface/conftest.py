"""A small pretrained corpus, and helpers that run `transformers` on a folder."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.cli.stages import run_stages
from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.lineage.graph import Lineage
from tests.conftest import SMALL
from tests.finetune_glue.glue_files import write_glue
from tests.prepare_corpus.corpora import text_folder


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with books and a tiny GLUE."""
    folder = tmp_path_factory.mktemp("interchange")
    text_folder(folder / "books")
    write_glue(folder / "glue")
    return folder


@pytest.fixture(scope="package")
def pretrained(folder: Path) -> Lineage:
    """Returns a lineage whose two methods are pretrained."""
    lineage = Lineage(user_config(folder), Artifacts(folder / "artifacts"))
    run(lineage, "prepare-corpus", "pretrain")
    return lineage


def settings(folder: Path, *overrides: str) -> list[str]:
    return [
        *SMALL, f"corpus.sources=[{{path='{folder}/books'}}]", "corpus.validation_every=3",
        "corpus.cleanup.min_letters=10", f"finetune.data={folder}/glue", 'finetune.tasks=["RTE"]', *overrides,
    ]  # fmt: skip


def user_config(folder: Path, *overrides: str) -> Config:
    return resolve("demo", None, settings(folder, *overrides), {}).config


def run(lineage: Lineage, *stages: str) -> None:
    run_stages(stages, lineage, Console(quiet=True), workers=0, force=False)


@contextmanager
def transformers() -> Iterator[Any]:
    """Yields the reference library with its warnings suppressed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        yield transformers


def load_theirs(folder: Path) -> tuple[Any, Any]:
    """Returns (tokenizer, model) loaded with `transformers`."""
    with transformers() as library:
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
        model, info = library.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    return tokenizer, model.eval()


@torch.no_grad()
def their_logits(model: Any, tokens_BL: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:
    """Returns logits [N, V] at the positions that aren't padding."""
    logits: torch.Tensor = model(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits[attention_mask_BL]
    return logits


@torch.no_grad()
def our_logits(model: Any, tokens_BL: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:
    positions_BK = torch.arange(tokens_BL.shape[1]).expand(tokens_BL.shape)
    logits: torch.Tensor = model.eval().token_logits(tokens_BL, attention_mask_BL, positions_BK)
    return logits[attention_mask_BL.flatten(), : model.encoder.vocab_size]


def padded_batch(vocab_size: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random tokens [3, length] and their attention mask, False at padding."""
    tokens_BL = torch.randint(5, vocab_size, (3, length), generator=torch.Generator().manual_seed(1))
    attention_mask_BL = torch.arange(length) < torch.tensor([[length], [length // 2], [3]])
    return tokens_BL * attention_mask_BL, attention_mask_BL
