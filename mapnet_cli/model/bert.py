"""The transformer underlying the encoder and MAP-Net: BERT's, post-LN, or ModernBERT's, pre-LN.

Shapes: B sequences, L positions, Q requested positions, H hidden size, A heads, V vocabulary (padded internally);
T tokens of a batch without its padding.
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Transformer
from mapnet_cli.model import kernels
from mapnet_cli.model.attention import Packing, Places, attention

VOCABULARY_MULTIPLE = 64
"""Embedding rows are padded to a multiple of this for fast matrix products. Callers never see the padding."""


@dataclass(frozen=True)
class Site:
    """What the attention of a layer needs besides the vectors."""

    places: Places
    window: int  # largest distance over which tokens attend to each other; 0: any
    angles: tuple[Tensor, Tensor] | None  # of the tokens' rotary positions, see `rotary_angles`
    position_T: Tensor


class Attention(nn.Module):
    """Multi-head self-attention with a single projection for query, key and value."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        bias = config.architecture == "bert"
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias)
        self.out = nn.Linear(config.hidden, config.hidden, bias)

    def forward(self, x_TH: Tensor, site: Site, query_BQ: Tensor | None = None) -> Tensor:
        """Returns [T, H], or [B x Q, H] for the tokens at the indices `query_BQ`."""
        hidden, weight, bias = x_TH.shape[1], self.qkv.weight, self.qkv.bias
        query_BQH, position_BQ, angles = None, None, site.angles
        if query_BQ is None:
            packed = self._projected(x_TH, weight, bias)
        else:
            own_bias, other_bias = (None, None) if bias is None else (bias[:hidden], bias[hidden:])
            query_BQH = F.linear(x_TH[query_BQ], weight[:hidden], own_bias)
            packed = self._projected(x_TH, weight[hidden:], other_bias)
            position_BQ, flat = site.position_T[query_BQ], query_BQ.flatten()
            if angles is not None:
                own = angles[0][flat], angles[1][flat]
                turned = kernels.rotated(query_BQH.view(-1, 1, hidden), self.heads, own, 1, self.training)
                query_BQH = turned.view_as(query_BQH)
        if angles is not None:
            assert isinstance(packed, Tensor)
            packed = kernels.rotated(packed, self.heads, angles, packed.shape[1] - 1, self.training)
        score_bias = site.places.bias(kernels.compute_dtype(x_TH), site.window, position_BQ)
        on_cpu = self.training and kernels.on_cpu(x_TH.device)
        dropout = self.dropout if self.training else 0.0
        out: Tensor = self.out(attention(packed, query_BQH, self.heads, site.places, score_bias, dropout, on_cpu))
        return out

    def _projected(self, x_TH: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        """Returns the `packed` of `attention`, as several tensors where they need no stacked gradient."""
        parts = len(weight) // x_TH.shape[1]
        if self.training and bias is not None and not kernels.on_cpu(x_TH.device):
            return kernels.project(x_TH, weight, bias, parts)
        return F.linear(x_TH, weight, bias).view(len(x_TH), parts, -1)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by dropout, the residual and LayerNorm (post-LN)."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.ffn_in = nn.Linear(config.hidden, config.ffn)
        self.ffn_out = nn.Linear(config.ffn, config.hidden)
        self.ffn_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, x_TH: Tensor, site: Site, query_BQ: Tensor | None = None) -> Tensor:
        """Returns [T, H], or [B x Q, H] for the tokens at the indices in `query_BQ`."""
        attended = self.attention(x_TH, site, query_BQ)
        x = _rows(x_TH, query_BQ)
        x = kernels.layer_norm(kernels.dropout_add(attended, x, self.dropout, self.training), self.attention_norm)
        inner = self.ffn_out(F.gelu(self.ffn_in(x)))
        return kernels.layer_norm(kernels.dropout_add(inner, x, self.dropout, self.training), self.ffn_norm)


class ModernLayer(nn.Module):
    """ModernBERT's: LayerNorm before attention and before a GeGLU (pre-LN); no biases; dropout as in transformers."""

    def __init__(self, config: Transformer, first: bool) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, config.hidden, config.layer_norm_eps, bias=False)
        self.attention_norm = None if first else norm()  # the embeddings are normalised already
        self.attention = Attention(config)
        self.ffn_norm = norm()
        self.ffn_in = nn.Linear(config.hidden, 2 * config.ffn, bias=False)
        self.ffn_out = nn.Linear(config.ffn, config.hidden, bias=False)
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout

    def forward(self, x_TH: Tensor, site: Site, query_BQ: Tensor | None = None) -> Tensor:
        """Returns [T, H], or [B x Q, H] for the tokens at the indices in `query_BQ`.

        The residuals stay in float32 under autocast: they grow from layer to layer, while what is added doesn't.
        """
        normed_TH = x_TH if self.attention_norm is None else kernels.layer_norm(x_TH, self.attention_norm)
        attended = self.attention(normed_TH.to(kernels.compute_dtype(x_TH)), site, query_BQ)
        x = kernels.dropout_add(attended, _rows(x_TH, query_BQ), self.attention_dropout, self.training)
        inner = self.ffn_in(kernels.layer_norm(x, self.ffn_norm).to(kernels.compute_dtype(x)))
        inner = kernels.dropout_add(kernels.geglu(inner, self.training), None, self.dropout, self.training)
        return kernels.dropout_add(self.ffn_out(inner), x, 0.0, self.training)


def _rows(x_TH: Tensor, query_BQ: Tensor | None) -> Tensor:
    return x_TH if query_BQ is None else x_TH[query_BQ.flatten()]


class Stack(nn.Module):
    """LayerNorm, dropout and the layers. `positions` are BERT's learned embeddings; `final_norm` is ModernBERT's."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.config = config
        modern = config.architecture == "modernbert"
        self.positions = None if modern else nn.Embedding(config.max_length, config.hidden)
        norm = partial(nn.LayerNorm, config.hidden, config.layer_norm_eps, bias=not modern)
        self.norm = norm()
        self.dropout = config.dropout
        self.layers = nn.ModuleList(
            ModernLayer(config, first=not i) if modern else Layer(config) for i in range(config.layers)
        )
        self.final_norm = norm() if modern else None

    def forward(
        self, vectors_BLH: Tensor, attention_mask_BL: Tensor | None, positions_BQ: Tensor | None = None
    ) -> Tensor:
        """Returns [B, L, H]. `attention_mask_BL` is False at padding; None if there is none.

        With `positions_BQ`, returns only the vectors at those positions, [B, Q, H], and the last layer
        computes no others. The result is the same.
        """
        batch, length, _ = vectors_BLH.shape
        device = vectors_BLH.device
        mask_B11L = None if attention_mask_BL is None else attention_mask_BL[:, None, None, :]
        query_BQ = None
        if positions_BQ is not None:
            query_BQ = positions_BQ + length * torch.arange(batch, device=device)[:, None]
        if self.positions is not None:
            vectors_BLH = vectors_BLH + self.positions.weight[:length]
        position_T = torch.arange(length, device=device).repeat(batch)
        places = Places(batch, length, device, mask_B11L)
        return self._layers(vectors_BLH.flatten(0, 1), places, position_T, query_BQ).view(batch, -1, self.config.hidden)

    def packed(self, vectors_TH: Tensor, packing: Packing, first: bool) -> Tensor:
        """Returns [B, L, H], or each sequence's first vector [B, 1, H]. Only attention computes on padding."""
        if self.positions is not None:
            vectors_TH = vectors_TH + self.positions(packing.position_T)
        places, query_B1 = packing.places, packing.first_B[:, None] if first else None
        x_TH = self._layers(vectors_TH, places, packing.position_T, query_B1)
        return (x_TH if first else places.spread(x_TH, 1)).view(places.batch, -1, self.config.hidden)

    def _layers(self, vectors_TH: Tensor, places: Places, position_T: Tensor, query_BQ: Tensor | None) -> Tensor:
        config = self.config
        x_TH = kernels.dropout_add(kernels.layer_norm(vectors_TH, self.norm), None, self.dropout, self.training)
        if config.architecture == "bert":
            sites = [Site(places, 0, None, position_T)]
            x_TH = x_TH.to(kernels.compute_dtype(x_TH))  # under autocast, all residuals are in its precision
        else:
            size = config.hidden // config.heads
            sites = [
                Site(places, window, kernels.rotary_angles(position_T, size, theta), position_T)
                for window, theta in ((0, config.rope_theta), (config.local_attention // 2, config.rope_theta_local))
            ]
        for number, (layer, window) in enumerate(zip(self.layers, config.attention_windows(), strict=True)):
            x_TH = layer(x_TH, sites[window > 0], query_BQ if number + 1 == config.layers else None)
        return x_TH if self.final_norm is None else kernels.layer_norm(x_TH, self.final_norm)


class Encoder(nn.Module):
    """The encoder: BERT's without segment embeddings, or ModernBERT's. MLM head and MAP-Net share `tokens`."""

    def __init__(self, config: Transformer, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(padded_vocabulary(vocab_size), config.hidden)
        self.stack = Stack(config)

    def forward(
        self, tokens_BL: Tensor, attention_mask_BL: Tensor | None = None, positions_BQ: Tensor | None = None
    ) -> Tensor:
        """Returns the hidden states [B, L, H], or [B, Q, H] at the positions in `positions_BQ`."""
        hidden: Tensor = self.stack(self.tokens(tokens_BL), attention_mask_BL, positions_BQ)
        return hidden

    def pooled(
        self, tokens: Tensor, packing: Packing | Tensor | None, added: Tensor | None = None, mean: bool = False
    ) -> Tensor:
        """Returns the hidden state at each sequence's first token, or the mean over all its tokens in float32, [B, H].

        `packing` is that of tokens [T] without padding, or the attention mask of tokens [B, L], None without padding.
        `added` is added to the token embeddings. The last layer computes what is needed.
        """
        vectors = self.tokens(tokens) if added is None else self.tokens(tokens) + added
        if isinstance(packing, Packing):
            hidden, mask_B11L = self.stack.packed(vectors, packing, not mean), packing.places.attention_mask_B11L
            kept_BL = None if mask_B11L is None else mask_B11L[:, 0, 0]
        else:
            hidden, kept_BL = self.stack(vectors, packing, None if mean else tokens.new_zeros(len(tokens), 1)), packing
        if not mean:
            return hidden[:, 0]
        if kept_BL is None:
            return hidden.mean(dim=1, dtype=torch.float32)
        return (hidden * kept_BL[:, :, None]).sum(dim=1, dtype=torch.float32) / kept_BL.sum(dim=1, keepdim=True)


def padded_vocabulary(vocab_size: int) -> int:
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def rounded_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns bfloat16 copies, for `torch.func.functional_call`, of all weights that are used in bfloat16 only.

    Results are autocast's, which would launch a kernel for each weight and one for its gradient.
    """
    parts = [part for part in model.modules() if isinstance(part, nn.Linear)]
    norms = [(part.attention_norm, part.ffn_norm) for part in model.modules() if isinstance(part, Layer)]
    used = {weight for part in (*parts, *chain(*norms)) for weight in part.parameters()}
    names = {name: weight for name, weight in model.named_parameters() if weight in used}
    return dict(zip(names, kernels.rounded(names.values()), strict=True))


def attention_mask(tokens_BL: Tensor, pad: int, device: torch.device | None = None) -> Tensor | None:
    """Returns a mask [B, L] that is False at padding, or None without padding, which allows the fastest kernels.

    Reads the tokens on the CPU: call it before moving them to a GPU. `device` is that of the mask.
    """
    attention_mask_BL = tokens_BL != pad
    return None if bool(attention_mask_BL.all()) else attention_mask_BL.to(device)
