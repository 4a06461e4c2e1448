"""The model that pretraining trains: encoder, MLM head, and MAP-Net where the method has one.

Shapes: B sequences, L positions, K masked positions of a sequence at most, N of all that are
computed, V vocabulary (padded inside).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Proposal, Transformer
from mapnet_cli.model.heads import MaskedLMHead
from mapnet_cli.model.proposal import MapNet
from mapnet_cli.model.transformer import Encoder, initialise
from mapnet_cli.seeds import derive_seed


class PretrainingModel(nn.Module):
    """`proposal` is None for methods without MAP-Net. The three parts may be called one by one."""

    def __init__(self, encoder: Transformer, vocab_size: int, proposal: Proposal | None) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, vocab_size)
        self.head = MaskedLMHead(encoder.hidden, vocab_size)
        self.proposal = MapNet(proposal, encoder.hidden) if proposal else None

    def reset(self, seed: int) -> None:
        """Draws initial weights. The encoder's are the same with and without MAP-Net."""
        parts: list[tuple[str, nn.Module, Transformer]]
        parts = [("encoder", self.encoder, self.encoder.config), ("head", self.head, self.encoder.config)]
        if self.proposal is not None:
            parts.append(("proposal", self.proposal, self.proposal.config))
        for name, part, config in parts:
            initialise(part, config, torch.Generator().manual_seed(derive_seed(seed, "initial weights", name)))

    def hidden_at(
        self, tokens_BL: Tensor, attend_BL: Tensor | None, positions_BK: Tensor, slots_N: Tensor | None
    ) -> Tensor:
        """Returns the encoder's vectors [N, H] at some slots of B x K positions; at all of them if None."""
        hidden_NH: Tensor = self.encoder(tokens_BL, attend_BL, positions_BK).flatten(0, 1)
        return hidden_NH if slots_N is None else hidden_NH.index_select(0, slots_N)

    def token_logits(
        self, tokens_BL: Tensor, attend_BL: Tensor | None, positions_BK: Tensor, slots_N: Tensor | None = None
    ) -> Tensor:
        """Returns MLM logits [N, V] at some slots of B x K positions only; at all of them if None."""
        hidden_NH = self.hidden_at(tokens_BL, attend_BL, positions_BK, slots_N)
        logits_NV: Tensor = self.head(hidden_NH, self.encoder.tokens.weight)
        return logits_NV

    def token_losses(
        self,
        tokens_BL: Tensor,
        attend_BL: Tensor | None,
        positions_BK: Tensor,
        targets_BK: Tensor,
        slots_N: Tensor | None,
    ) -> Tensor:
        """Returns -log p of each target [B, K], float32, 0 at slots that aren't computed."""
        logits_NV = self.token_logits(tokens_BL, attend_BL, positions_BK, slots_N).float()
        if slots_N is None:
            loss_N = F.cross_entropy(logits_NV, targets_BK.flatten(), reduction="none")
            return loss_N.view_as(targets_BK)
        loss_N = F.cross_entropy(logits_NV, targets_BK.flatten().index_select(0, slots_N), reduction="none")
        return torch.zeros(targets_BK.numel(), device=loss_N.device).index_copy(0, slots_N, loss_N).view_as(targets_BK)

    def propose(self, tokens_BL: Tensor, attend_BL: Tensor | None, maskable_BL: Tensor) -> Tensor:
        """Returns MAP-Net's log q [B, L] for the unmasked sentences."""
        assert self.proposal is not None
        log_q_BL: Tensor = self.proposal(self.encoder.tokens(tokens_BL), attend_BL, maskable_BL)
        return log_q_BL
