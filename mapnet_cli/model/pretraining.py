"""The model that pretraining trains: encoder, MLM head, and MAP-Net where the method has one."""

import torch
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

    def token_logits(
        self, tokens_BL: Tensor, attend_BL: Tensor | None, positions_BK: Tensor, valid_BK: Tensor
    ) -> Tensor:
        """Returns MLM logits [N, V] at the N valid positions only, row by row."""
        hidden_NH = self.encoder(tokens_BL, attend_BL, positions_BK)[valid_BK]
        logits_NV: Tensor = self.head(hidden_NH, self.encoder.tokens.weight)
        return logits_NV

    def propose(self, tokens_BL: Tensor, attend_BL: Tensor | None, maskable_BL: Tensor) -> Tensor:
        """Returns MAP-Net's log q [B, L] for the unmasked sentences."""
        assert self.proposal is not None
        log_q_BL: Tensor = self.proposal(self.encoder.tokens(tokens_BL), attend_BL, maskable_BL)
        return log_q_BL
