"""Sample masks of a checkpoint for Figure 2. Shapes: B sequences, L positions, K masked positions of a sequence."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.core.records import MaskedWord, ProposedMasks
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.masking import sampling
from mapnet_cli.masking.context import MaskContext
from mapnet_cli.masking.diagnostics import COLLAPSED
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.strategies import draw_masks
from mapnet_cli.model.bert import attention_mask
from mapnet_cli.model.factory import AnyPretrainingModel
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.pretrain.batches import load_batch
from mapnet_cli.text.bpe import load_tokenizer, word_part
from mapnet_cli.text.shards import Sequences
from mapnet_cli.text.words import CLS, PAD, SEP

SEED = 0
FIGURE_TOKENS = 64
"""The first so many tokens of a sequence are shown."""


@torch.no_grad()
def figure2_masks(
    model: AnyPretrainingModel, method: Method, sequences: Sequences, context: MaskContext, tokenizer: Path, count: int
) -> ProposedMasks:
    """Returns at most `count` sentences with the masks that the method draws and each word's probability (Figure 2)."""
    model.eval()
    device = model.encoder.tokens.weight.device
    count = min(count, len(sequences))
    # spread over the validation set, so that the sentences come from different documents
    chosen = torch.from_numpy(np.linspace(0, len(sequences) - 1, count).astype(np.int64))
    tokens_BL = load_batch(sequences, chosen)[:, :FIGURE_TOKENS]
    maskable_BL = sampling.maskable_positions(tokens_BL)
    if method.proposal:
        assert isinstance(model, PretrainingModel)
        attention_mask_BL = attention_mask(tokens_BL, PAD)
        attention_mask_BL = None if attention_mask_BL is None else attention_mask_BL.to(device)
        own_BL = model.propose(tokens_BL.to(device), attention_mask_BL, maskable_BL.to(device)).cpu()
        log_q_BL = sampling.mixed_with_uniform(own_BL, maskable_BL, method.proposal.uniform_mix)
    else:
        own_BL = log_q_BL = sampling.uniform_log_q(maskable_BL)
    noise = MaskNoise.draw(torch.Generator().manual_seed(derive_seed(SEED, "figure 2")), *tokens_BL.shape)
    masks = draw_masks(method, tokens_BL, noise, context, own_BL if method.proposal else None)
    masked_BL = torch.zeros_like(maskable_BL).int().scatter_add(1, masks.positions_BK, masks.valid_BK.int()) > 0
    entropy_B = -(log_q_BL.exp() * log_q_BL.masked_fill(~maskable_BL, 0.0)).sum(dim=1)
    entropy, uniform = float(entropy_B.mean()), float(maskable_BL.sum(dim=1).clamp(min=1).float().log().mean())
    pieces = load_tokenizer(tokenizer)
    model.train()
    return ProposedMasks(
        sentences=[_words(pieces, *row) for row in zip(tokens_BL, log_q_BL.exp(), masked_BL, strict=True)],
        proposal_entropy=entropy,
        uniform_entropy=uniform,
        collapsed=entropy < COLLAPSED * uniform,
    )


def _words(tokenizer: Any, tokens_L: Tensor, q_L: Tensor, masked_L: Tensor) -> list[MaskedWord]:
    """Returns the sequence's words: tokens joined where a piece continues its word."""
    words: list[MaskedWord] = []
    for token, q, masked in zip(tokens_L.tolist(), q_L.tolist(), masked_L.tolist(), strict=True):
        if token in (PAD, CLS, SEP):
            continue
        text, begins = word_part(tokenizer, token)
        if words and not begins:
            last = words[-1]
            words[-1] = MaskedWord(
                text=last.text + text, probability=last.probability + q, masked=last.masked or masked
            )
        else:
            words.append(MaskedWord(text=text, probability=q, masked=masked))
    return words
