"""Proposals: distributions over the positions of an unmasked sentence, from MAP-Net or from a table of tokens.

Shapes: B sequences, L positions, K masked positions per sequence, E the encoder's hidden size, H MAP-Net's,
V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from mapnet_cli.config import MapNetSizes
from mapnet_cli.model.bert import Stack, padded_vocabulary

UNIT = 2.0**-20
"""Signals are summed as integer multiples of this, so sums don't depend on order or number of processes."""
FLOOR, NEW = 0.005, 0.8
"""Of AMLM: the smallest masking probability of a token, and the share of the new mean in its weight."""
PRIOR = 5.0  # weight of the overall mean signal in each token's mean, as a number of observations


class MapNet(nn.Module):
    """MAP-Net (3.3, 4.1): embeddings (the encoder's, or its own with `vocab_size`), projection, transformer."""

    def __init__(self, config: MapNetSizes, encoder_hidden: int, vocab_size: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokens = None if vocab_size is None else nn.Embedding(padded_vocabulary(vocab_size), encoder_hidden)
        self.project = nn.Linear(encoder_hidden, config.hidden)
        self.stack = Stack(config)
        self.score = nn.Linear(config.hidden, 1)

    def forward(self, vectors_BLE: Tensor, attention_mask_BL: Tensor | None, maskable_BL: Tensor) -> Tensor:
        """Returns log q [B, L] in float32, -inf where not maskable. Its loss reaches the token embeddings."""
        scores_BL = self.score(self.stack(self.project(vectors_BLE), attention_mask_BL)).squeeze(-1)
        return masked_log_softmax(scores_BL.float(), maskable_BL)


def masked_log_softmax(scores_BL: Tensor, maskable_BL: Tensor) -> Tensor:
    """Returns log-probabilities over the maskable positions of each row, -inf elsewhere. No NaN in rows without any."""
    none_B1 = ~maskable_BL.any(dim=1, keepdim=True)
    open_BL = maskable_BL | none_B1
    log_q_BL = torch.log_softmax(scores_BL.masked_fill(~open_BL, -torch.inf), dim=1)
    return log_q_BL.masked_fill(~maskable_BL, -torch.inf)


class TokenTable(nn.Module):
    """q of a position is proportional to its token's weight: the running mean of a signal, or a fixed number.

    All persistent state is in buffers, so it is saved with the model and ignored by optimisers.
    """

    log_weight_V: Tensor
    signal_V: Tensor
    count_V: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.register_buffer("log_weight_V", torch.zeros(vocab_size))
        self.register_buffer("signal_V", torch.zeros(vocab_size, dtype=torch.float64))
        self.register_buffer("count_V", torch.zeros(vocab_size, dtype=torch.float64))
        # not a buffer: it differs between processes, and DDP would overwrite it with rank 0's
        self.fresh_2V = torch.zeros(2, vocab_size, dtype=torch.int64)

    def log_q(self, tokens_BL: Tensor, maskable_BL: Tensor) -> Tensor:
        """Returns the log-probability of each position [B, L], -inf where not maskable."""
        return masked_log_softmax(self.log_weight_V[tokens_BL], maskable_BL)

    def observe(self, tokens_BK: Tensor, signal_BK: Tensor, valid_BK: Tensor) -> None:
        """Accumulates the signal at masked positions in `fresh_2V`, for the next `learn`."""
        self.fresh_2V = self.fresh_2V.to(tokens_BK.device)
        whole_BK = torch.where(valid_BK, (signal_BK.double() / UNIT).round().long(), 0)
        self.fresh_2V[0].index_add_(0, tokens_BK.flatten(), whole_BK.flatten())
        self.fresh_2V[1].index_add_(0, tokens_BK.flatten(), valid_BK.flatten().long())

    def learn(self, fresh_2V: Tensor, memory: int) -> None:
        """Adds a step's sums of signals (in UNITs) and counts; observations `memory` steps old have weight 1/e."""
        keep = torch.exp(torch.tensor(-1.0 / memory, dtype=torch.float64))
        self.signal_V.mul_(keep).add_(fresh_2V[0].double() * UNIT)
        self.count_V.mul_(keep).add_(fresh_2V[1].double())
        mean = self.signal_V.sum() / self.count_V.sum().clamp(min=1)
        weight_V = (self.signal_V + PRIOR * mean) / (self.count_V + PRIOR)
        self.log_weight_V.copy_(weight_V.clamp(min=UNIT).log())
        self.fresh_2V.zero_()

    def adapt(self, fresh_2V: Tensor, due: bool, rate: float, soft: bool) -> None:
        """Adds a step's sums and counts; if `due`, updates the weights by AMLM's rule and starts new sums.

        The signal is an error (0 or 1) or, if `soft`, a loss, rescaled so that the tokens' means go from 0 to 1. Every
        mean includes one more observation: half an error, or the loss of a uniform guess. `rate` is the mask rate.
        """
        self.signal_V.add_(fresh_2V[0].double() * UNIT)
        self.count_V.add_(fresh_2V[1].double())
        self.fresh_2V.zero_()
        if due:
            new_V = (self.signal_V + (math.log(len(self.count_V)) if soft else 0.5)) / (self.count_V + 1)
            if soft:
                new_V = (new_V - new_V.min()) / (new_V.max() - new_V.min()).clamp(min=UNIT)
            weight_V = ((1 - NEW) * self.log_weight_V.exp() + NEW * new_V).clamp(min=FLOOR / rate)
            self.log_weight_V.copy_((weight_V / weight_V.mean()).log())
            self.signal_V.zero_()
            self.count_V.zero_()
