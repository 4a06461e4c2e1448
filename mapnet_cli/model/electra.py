"""ELECTRA (Clark et al. 2020): a small generator fills in masks, and the encoder detects replaced tokens.

Shapes: B sequences, L positions, K masked positions per sequence (at most), N computed slots of the
batch, H the generator's hidden size, E the encoder's, V vocabulary (padded internally).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Transformer
from mapnet_cli.model.bert import Encoder, Stack
from mapnet_cli.model.masked_lm import DetectionHead, MaskedLMHead, at_slots, initialise_parts


class Generator(nn.Module):
    """A masked language model that shares the encoder's token embeddings for input and output."""

    def __init__(self, config: Transformer, embedding: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(embedding, config.hidden)
        self.stack = Stack(config)
        self.head = MaskedLMHead(config, vocab_size, embedding)

    def forward(self, vectors_BLE: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor) -> Tensor:
        """Returns the hidden states at the given positions, [B, K, H]. `vectors_BLE` are the token embeddings."""
        hidden_BKH: Tensor = self.stack(self.project(vectors_BLE), attention_mask_BL, positions_BK)
        return hidden_BKH


class Electra(nn.Module):
    """Encoder with detection head, and generator. Only the encoder is used after pretraining."""

    proposal: None = None  # losses at masks are the generator's, so a proposal can't learn from them

    def __init__(self, encoder: Transformer, vocab_size: int, generator: Transformer) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, vocab_size)
        self.detector = DetectionHead(encoder.hidden)
        self.generator = Generator(generator, encoder.hidden, vocab_size)

    def init_weights(self, seed: int) -> None:
        """Initialises the weights. The encoder's are the same as for every other method."""
        own, generator = self.encoder.config, (self.generator, self.generator.config)
        parts = {"encoder": (self.encoder, own), "detector": (self.detector, own), "generator": generator}
        initialise_parts(seed, parts)

    def generate(
        self, corrupted_BL: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor, targets_BK: Tensor,
        noise_BK: Tensor, slots_N: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Returns the generator's -log p of each target (float32) and a token sampled from its distribution.

        Both are [B, K] and 0 at slots that aren't computed. `slots_N` is None to compute all slots.
        The noise is uniform in [0, 1). Sampling carries no gradient.
        """
        hidden_BKH = self.generator(self.encoder.tokens(corrupted_BL), attention_mask_BL, positions_BK)
        hidden_NH, targets_N, noise_N = hidden_BKH.flatten(0, 1), targets_BK.flatten(), noise_BK.flatten()
        if slots_N is not None:
            hidden_NH, targets_N, noise_N = (x.index_select(0, slots_N) for x in (hidden_NH, targets_N, noise_N))
        logits_NV = self.generator.head(hidden_NH, self.encoder.tokens.weight).float()
        loss_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
        drawn_N = draw_tokens(logits_NV, noise_N, self.encoder.vocab_size)
        return at_slots(loss_N, slots_N, targets_BK), at_slots(drawn_N, slots_N, targets_BK)

    def detect(self, tokens_BL: Tensor, attention_mask_BL: Tensor | None) -> Tensor:
        """Returns the logit of each token having been replaced, [B, L] in float32."""
        logits_BL: Tensor = self.detector(self.encoder(tokens_BL, attention_mask_BL))
        return logits_BL.float()


@torch.no_grad()
def draw_tokens(logits_NV: Tensor, noise_N: Tensor, vocab_size: int) -> Tensor:
    """Returns tokens [N] from softmax(logits) by inverting its distribution function: the same on any device."""
    cumulative_NV = logits_NV.softmax(dim=1).cumsum_(dim=1)
    threshold_N = noise_N * cumulative_NV[:, -1]  # the total is 1 only up to rounding
    tokens_N1 = torch.searchsorted(cumulative_NV, threshold_N[:, None], right=True)
    return tokens_N1.squeeze(1).clamp(max=vocab_size - 1)
