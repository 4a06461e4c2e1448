"""The model that pretraining trains: encoder, MLM head, and MAP-Net where the method has one.

Shapes: B sequences, L positions, K masked positions of a sequence at most, N of all that are
computed, V vocabulary (padded inside).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Proposal, Transformer
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.model.bert import Encoder, initialise
from mapnet_cli.model.heads import MaskedLMHead, at_slots
from mapnet_cli.model.proposal import MapNet
from mapnet_cli.model.token_table import TokenTable


class PretrainingModel(nn.Module):
    """`proposal` is None for methods whose masks nothing proposes. The three parts may be called one by one."""

    def __init__(
        self, encoder: Transformer, vocab_size: int, proposal: Proposal | Literal["table"] | None = None,
        embeddings: Literal["shared", "detached", "own"] = "shared",
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = Encoder(encoder, vocab_size)
        self.head = MaskedLMHead(encoder.hidden, vocab_size)
        self.proposal: MapNet | TokenTable | None = None
        if proposal == "table":
            self.proposal = TokenTable(vocab_size)
        elif proposal is not None:
            self.proposal = MapNet(proposal, encoder.hidden, vocab_size if embeddings == "own" else None)
        self.embeddings = embeddings

    def reset(self, seed: int) -> None:
        """Draws initial weights. The encoder's are the same with and without MAP-Net."""
        parts: list[tuple[str, nn.Module, Transformer]]
        parts = [("encoder", self.encoder, self.encoder.config), ("head", self.head, self.encoder.config)]
        if isinstance(self.proposal, MapNet):
            parts.append(("proposal", self.proposal, self.proposal.config))
        for name, part, config in parts:
            initialise(part, config, torch.Generator().manual_seed(derive_seed(seed, "initial weights", name)))

    def hidden_at(
        self, tokens_BL: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor, slots_N: Tensor | None
    ) -> Tensor:
        """Returns the encoder's vectors [N, H] at some slots of B x K positions; at all of them if None."""
        hidden_NH: Tensor = self.encoder(tokens_BL, attention_mask_BL, positions_BK).flatten(0, 1)
        return hidden_NH if slots_N is None else hidden_NH.index_select(0, slots_N)

    def token_logits(
        self, tokens_BL: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor, slots_N: Tensor | None = None
    ) -> Tensor:
        """Returns MLM logits [N, V] at some slots of B x K positions only; at all of them if None."""
        hidden_NH = self.hidden_at(tokens_BL, attention_mask_BL, positions_BK, slots_N)
        logits_NV: Tensor = self.head(hidden_NH, self.encoder.tokens.weight)
        return logits_NV

    def token_losses(
        self,
        tokens_BL: Tensor,
        attention_mask_BL: Tensor | None,
        positions_BK: Tensor,
        targets_BK: Tensor,
        slots_N: Tensor | None,
        signal: str = "loss",
    ) -> tuple[Tensor, Tensor]:
        """Returns -log p of each target and the signal that a proposal learns, [B, K], float32.

        Both are 0 at slots that aren't computed; the signal carries no gradient.
        """
        logits_NV = self.token_logits(tokens_BL, attention_mask_BL, positions_BK, slots_N).float()
        targets_N = targets_BK.flatten() if slots_N is None else targets_BK.flatten().index_select(0, slots_N)
        loss_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
        signal_N = self._signal(signal, logits_NV.detach(), targets_N, loss_N.detach())
        return at_slots(loss_N, slots_N, targets_BK), at_slots(signal_N, slots_N, targets_BK)

    def _signal(self, name: str, logits_NV: Tensor, targets_N: Tensor, loss_N: Tensor) -> Tensor:
        if name == "loss":
            return loss_N
        if name == "one-minus-p":
            return -torch.expm1(-loss_N)
        return logit_gradient_norm(logits_NV, targets_N, self.encoder.tokens.weight.detach())

    def propose(self, tokens_BL: Tensor, attention_mask_BL: Tensor | None, maskable_BL: Tensor) -> Tensor:
        """Returns log q [B, L] for the unmasked sentences."""
        if isinstance(self.proposal, TokenTable):
            return self.proposal.log_q(tokens_BL, maskable_BL)
        assert self.proposal is not None
        if self.proposal.tokens is not None:
            vectors_BLE = self.proposal.tokens(tokens_BL)
        else:
            vectors_BLE = self.encoder.tokens(tokens_BL)
            vectors_BLE = vectors_BLE.detach() if self.embeddings == "detached" else vectors_BLE
        log_q_BL: Tensor = self.proposal(vectors_BLE, attention_mask_BL, maskable_BL)
        return log_q_BL


def logit_gradient_norm(logits_NV: Tensor, targets_N: Tensor, embeddings_VH: Tensor) -> Tensor:
    """Returns ||W^T (p - y)|| of each position [N]: the norm of its loss's gradient at the decoder's input."""
    p_NV = logits_NV.softmax(dim=1)
    gradient_NH = p_NV.to(embeddings_VH.dtype) @ embeddings_VH - embeddings_VH[targets_N]
    norm_N: Tensor = torch.linalg.vector_norm(gradient_NH.float(), dim=1)
    return norm_N
