"""MAP-Net, the mask proposal network: a distribution over the positions of the unmasked sentence.

Shapes: B sequences, L positions, E the encoder's hidden size, H MAP-Net's.
"""

import torch
from torch import Tensor, nn

from mapnet_cli.config import Proposal
from mapnet_cli.model.bert import Stack, padded_vocabulary


class MapNet(nn.Module):
    """Section 3.3 and 4.1: token embeddings of the encoder, projected, then its own transformer.

    With a `vocab_size` it has token embeddings of its own, `tokens`, of the encoder's width.
    """

    def __init__(self, config: Proposal, encoder_hidden: int, vocab_size: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokens = None if vocab_size is None else nn.Embedding(padded_vocabulary(vocab_size), encoder_hidden)
        self.project = nn.Linear(encoder_hidden, config.hidden)
        self.stack = Stack(config)
        self.score = nn.Linear(config.hidden, 1)

    def forward(self, vectors_BLE: Tensor, attention_mask_BL: Tensor | None, maskable_BL: Tensor) -> Tensor:
        """Returns log q [B, L], float32: the log-probability of each position, -inf where not maskable.

        `vectors_BLE` are the token embeddings; gradients of MAP-Net's loss reach them.
        """
        scores_BL = self.score(self.stack(self.project(vectors_BLE), attention_mask_BL)).squeeze(-1)
        return masked_log_softmax(scores_BL.float(), maskable_BL)


def masked_log_softmax(scores_BL: Tensor, maskable_BL: Tensor) -> Tensor:
    """Returns log-probabilities over the maskable positions of each row, -inf elsewhere.

    A row with no maskable position is -inf throughout, without NaN in value or gradient.
    """
    none_B1 = ~maskable_BL.any(dim=1, keepdim=True)
    open_BL = maskable_BL | none_B1
    log_q_BL = torch.log_softmax(scores_BL.masked_fill(~open_BL, -torch.inf), dim=1)
    return log_q_BL.masked_fill(~maskable_BL, -torch.inf)
