"""The model for masked-language-model pretraining, the heads on top of an encoder, and initial weights.

Shapes: B sequences, L positions, K masked positions per sequence (at most), N computed slots of the
batch, H hidden size, E token embedding size, V vocabulary (padded internally).
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import MapNetSizes, Transformer
from mapnet_cli.core import derive_seed
from mapnet_cli.model.bert import Encoder, Stack, padded_vocabulary
from mapnet_cli.model.kernels import layer_norm
from mapnet_cli.model.proposal import MapNet, TokenTable
from mapnet_cli.model.token_loss import tied_embedding, token_loss

PADDING_LOGIT = -1e4  # logit of the vocabulary's padding rows, whose probability is then exactly 0 in float32
EMBEDDING_STD = 0.02
SINUSOID_AMPLITUDE, SINUSOID_BASE = 0.05, 1000.0


class PretrainingModel(nn.Module):
    """Encoder, MLM head and proposal, which may be called separately. `proposal` is None for methods without one."""

    def __init__(
        self, encoder: Transformer, vocab_size: int, proposal: MapNetSizes | Literal["table"] | None = None,
        embeddings: Literal["shared", "detached", "own"] = "shared",
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = Encoder(encoder, vocab_size)
        self.head = MaskedLMHead(encoder, vocab_size)
        self.proposal: MapNet | TokenTable | None = None
        if proposal == "table":
            self.proposal = TokenTable(vocab_size)
        elif proposal is not None:
            self.proposal = MapNet(proposal, encoder.hidden, vocab_size if embeddings == "own" else None)
        self.embeddings = embeddings

    def init_weights(self, seed: int) -> None:
        """Initialises the weights. The encoder's are the same with and without MAP-Net."""
        own = self.encoder.config
        parts: dict[str, tuple[nn.Module, Transformer]] = {"encoder": (self.encoder, own), "head": (self.head, own)}
        if isinstance(self.proposal, MapNet):
            parts["proposal"] = self.proposal, self.proposal.config
        initialise_parts(seed, parts)

    def hidden_at(
        self, tokens_BL: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor, slots_N: Tensor | None
    ) -> Tensor:
        """Returns the encoder's hidden states [N, H] at the given slots of [B, K] positions; at all of them if None."""
        hidden_NH: Tensor = self.encoder(tokens_BL, attention_mask_BL, positions_BK).flatten(0, 1)
        return hidden_NH if slots_N is None else hidden_NH.index_select(0, slots_N)

    def token_logits(self, tokens_BL: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor) -> Tensor:
        """Returns MLM logits [N, V] at all N = B x K positions."""
        hidden_NH = self.hidden_at(tokens_BL, attention_mask_BL, positions_BK, None)
        logits_NV: Tensor = self.head(hidden_NH, self.encoder.tokens.weight)
        return logits_NV

    def token_losses(
        self, tokens_BL: Tensor, attention_mask_BL: Tensor | None, positions_BK: Tensor, targets_BK: Tensor,
        slots_N: Tensor | None, signal: str = "loss",
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Returns -log p of each target and, in training, a proposal's signal, [B, K] in float32; 0 at other slots."""
        if self.training:
            vectors_BLH, decoder_VH = tied_embedding(self.encoder.tokens.weight, tokens_BL)
        else:
            vectors_BLH, decoder_VH = self.encoder.tokens(tokens_BL), self.encoder.tokens.weight
        hidden_NH = self.encoder.stack(vectors_BLH, attention_mask_BL, positions_BK).flatten(0, 1)
        targets_N = targets_BK.flatten()
        if slots_N is not None:
            hidden_NH, targets_N = hidden_NH.index_select(0, slots_N), targets_N.index_select(0, slots_N)
        features_NE, bias_V = self.head.features(hidden_NH), self.head.padded_bias()
        if self.training:
            loss_N, signal_N = token_loss(features_NE, decoder_VH, bias_V, targets_N, signal)
        else:  # can be differentiated by torch.func
            loss_N = F.cross_entropy(F.linear(features_NE, decoder_VH, bias_V).float(), targets_N, reduction="none")
            signal_N = loss_N.detach()
        return at_slots(loss_N, slots_N, targets_BK), at_slots(signal_N, slots_N, targets_BK)

    forward = token_losses  # for torch.func.functional_call

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


class MaskedLMHead(nn.Module):
    """The MLM head: dense to `embedding` or the hidden size, GELU, LayerNorm, token embeddings as decoder, bias."""

    def __init__(self, config: Transformer, vocab_size: int, embedding: int | None = None) -> None:
        super().__init__()
        embedding, bert = embedding or config.hidden, config.architecture == "bert"
        self.dense = nn.Linear(config.hidden, embedding, bias=bert)
        self.norm = nn.LayerNorm(embedding, config.layer_norm_eps, bias=bert)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.padding = padded_vocabulary(vocab_size) - vocab_size

    def forward(self, hidden_NH: Tensor, embeddings_VE: Tensor) -> Tensor:
        """Returns logits [N, V], V padded."""
        return F.linear(self.features(hidden_NH), embeddings_VE, self.padded_bias())

    def features(self, hidden_NH: Tensor) -> Tensor:
        """Returns the decoder's input [N, E]."""
        return layer_norm(F.gelu(self.dense(hidden_NH)), self.norm)

    def padded_bias(self) -> Tensor:
        return F.pad(self.bias, (0, self.padding), value=PADDING_LOGIT)


class DetectionHead(nn.Module):
    """ELECTRA's detection head: dense, GELU, and one logit per position."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, hidden_BLH: Tensor) -> Tensor:
        """Returns the logit of each token having been replaced, [B, L]."""
        logits_BL1: Tensor = self.out(F.gelu(self.dense(hidden_BLH)))
        return logits_BL1.squeeze(-1)


class ClassificationHead(nn.Module):
    """fairseq's classification head: dropout, dense, tanh, dropout, output projection."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, hidden_BH: Tensor) -> Tensor:
        """Returns [B, outputs] for a vector per sequence: logits, or a single value for regression."""
        x_BH = torch.tanh(self.dense(self.dropout(hidden_BH)))
        logits: Tensor = self.out(self.dropout(x_BH))
        return logits


def at_slots(values_N: Tensor, slots_N: Tensor | None, like_BK: Tensor) -> Tensor:
    """Returns [B, K] with the values at their slots and 0 elsewhere; `slots_N` is None if values cover all slots."""
    if slots_N is None:
        return values_N.view_as(like_BK)
    zeros = torch.zeros(like_BK.numel(), dtype=values_N.dtype, device=values_N.device)
    return zeros.index_copy(0, slots_N, values_N).view_as(like_BK)


def initialise(module: nn.Module, config: Transformer, generator: torch.Generator) -> None:
    """Initialises weights: embeddings N(0, 0.02), matrices N(0, init_std), biases 0, LayerNorm 1 and 0, as BERT does.

    ModernBERT truncates at two standard deviations, and that of matrices whose output is added to the residuals, and
    of the head's, is divided by sqrt(2 layers).
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=EMBEDDING_STD, generator=generator)
        elif isinstance(part, nn.Linear):
            if config.architecture == "bert":
                nn.init.normal_(part.weight, std=config.init_std, generator=generator)
            else:
                last = name.rpartition(".")[2] in ("out", "ffn_out", "dense")
                std = config.init_std / (math.sqrt(2 * config.layers) if last else 1)
                nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Stack) and part.positions is not None and config.initial_positions == "sinusoidal":
            part.positions.weight.data.copy_(sinusoids(*part.positions.weight.shape))


def initialise_parts(seed: int, parts: Mapping[str, tuple[nn.Module, Transformer]]) -> None:
    """Initialises parts of a model by name, each from a generator of its own: adding one doesn't change the others."""
    for name, (part, config) in parts.items():
        initialise(part, config, torch.Generator().manual_seed(derive_seed(seed, "initial weights", name)))


def sinusoids(length: int, hidden: int) -> Tensor:
    """Returns [L, H]: sines in even columns and cosines in odd ones, with geometrically decreasing frequencies."""
    frequency_H = SINUSOID_BASE ** (-torch.arange(0, hidden, 2) / hidden)
    angle_LH = torch.arange(length)[:, None] * frequency_H
    both_LH = torch.stack([angle_LH.sin(), angle_LH.cos()], dim=2).reshape(length, -1)[:, :hidden]
    return SINUSOID_AMPLITUDE * both_LH
