"""What a method of the config is made of: its model, and what its strategy wants to know of the vocabulary."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mapnet_cli.config import Config, Method, Proposal
from mapnet_cli.masking import sampling
from mapnet_cli.masking.sampling import MaskNoise, Masks
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.model.networks import AnyPretrainingModel
from mapnet_cli.model.token_table import TokenTable
from mapnet_cli.text import bpe
from mapnet_cli.text.shards import Sequences
from mapnet_cli.text.special_tokens import FIRST_ORDINARY

COUNTED_SEQUENCES = 1 << 16
"""Token frequencies are those of so many sequences, spread evenly over the corpus, or of all."""


def build_model(config: Config, name: str, vocab_size: int) -> AnyPretrainingModel:
    """Returns the untrained model of a method, without initial weights drawn."""
    method, generator = config.method[name], config.generator(name)
    if generator is not None:
        return Electra(config.encoder, vocab_size, generator)
    kind = STRATEGIES[method.strategy].proposal
    proposal: Proposal | Literal["table"] | None = config.proposal if method.has_network else None
    if kind in ("table", "frequency"):
        proposal = "table"
    return PretrainingModel(config.encoder, vocab_size, proposal, method.proposal_embeddings)


def fix_frequencies(model: AnyPretrainingModel, sequences: Sequences) -> None:
    """Gives strategy "frequency" its weights: 1 over the square root of a token's count, so rarer is likelier."""
    assert isinstance(model.proposal, TokenTable)
    counts_V = token_counts(sequences, model.encoder.vocab_size)
    model.proposal.log_weight_V.copy_(-0.5 * torch.log(counts_V.clamp(min=1)))


def token_counts(sequences: Sequences, vocab_size: int) -> Tensor:
    """Returns how often each token stands in the corpus or an even sample of it, [V] in float64."""
    count = min(len(sequences), COUNTED_SEQUENCES)
    counts_V = np.zeros(vocab_size, dtype=np.int64)
    chosen = np.linspace(0, len(sequences) - 1, count).astype(np.int64)
    for part in np.array_split(chosen, -(-count // 1024)):
        counts_V += np.bincount(np.concatenate([sequences[int(index)] for index in part]), minlength=vocab_size)
    return torch.from_numpy(counts_V).double()


def draw_masks(
    method: Method,
    tokens_BL: Tensor,
    noise: MaskNoise,
    log_q_BL: Tensor | None = None,
    visit_B: Tensor | None = None,
    word_starts_V: Tensor | None = None,
) -> Masks:
    """Returns masks as a method draws them when it doesn't explore, outside of training: on the host."""
    maskable_BL = sampling.maskable_positions(tokens_BL)
    counts_B = sampling.mask_counts(maskable_BL, method.mask_rate, noise.rounding_B)
    return STRATEGIES[method.strategy].draw(
        MaskRequest(
            tokens_BL, maskable_BL, counts_B, sampling.max_mask_count(tokens_BL.shape[1], method.mask_rate),
            noise.order_BL, log_q_BL, method.sampler, method.uniform_mix,
            torch.zeros_like(counts_B) if visit_B is None else visit_B,
            None if word_starts_V is None else word_starts_V[tokens_BL],
        )
    )  # fmt: skip


def word_starts(tokenizer: Path, vocab_size: int) -> Tensor:
    """Returns True for tokens with which a word begins, [V]."""
    pieces = bpe.load(tokenizer)
    begins = [False] * FIRST_ORDINARY + [bpe.word_part(pieces, token)[1] for token in range(FIRST_ORDINARY, vocab_size)]
    return torch.tensor(begins)
