"""Words of held-out text: word kinds, for accuracy by kind, and sample masks of a checkpoint (Figure 2).

Shapes: B sequences, L positions, K masked positions per sequence, V vocabulary.
"""

import math
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli import masking
from mapnet_cli.config import Method
from mapnet_cli.core import COLLAPSED, MaskedWord, ProposedMasks, derive_seed
from mapnet_cli.model import AnyPretrainingModel, PretrainingModel, attention_mask
from mapnet_cli.pretrain.batches import load_batch
from mapnet_cli.text import CLS, FIRST_ORDINARY, FUNCTION_WORDS, MASK, PAD, SEP, Sequences, load_tokenizer, word_part

SEED = 0
FIGURE_TOKENS = 64
RATE_SEQUENCES = 256
DECILES = 10
FUNCTION, CONTENT, OTHER = range(3)
TAGGER = "en_core_web_sm"  # spaCy pipeline that tags parts of speech if the config names none


@torch.no_grad()
def figure2_masks(
    model: AnyPretrainingModel, method: Method, sequences: Sequences, context: masking.MaskContext, tokenizer: Path,
    count: int, buckets: "TokenBuckets", pipeline: str,
) -> ProposedMasks:  # fmt: skip
    """Returns up to `count` sentences with masks drawn by the method (Figure 2), and mask rates over more of them."""
    model.eval()
    tokens_BL, maskable_BL, masked_BL, log_q_BL, loss_BL = _draw(
        model, method, sequences, context, count, FIGURE_TOKENS
    )
    more = _draw(model, method, sequences, context, RATE_SEQUENCES, None)[:3]
    rates = _rates(*more, buckets)
    if tags := tag_rates(tokenizer, pipeline, more[0].tolist(), more[2].tolist()):
        rates["tag"] = tags
    entropy = float(masking.entropy(log_q_BL, maskable_BL).mean())
    uniform = float(maskable_BL.sum(dim=1).clamp(min=1).float().log().mean())
    pieces = load_tokenizer(tokenizer)
    model.train()
    rows = zip(tokens_BL, log_q_BL.exp(), masked_BL, loss_BL, strict=True)
    return ProposedMasks(
        sentences=[_words(pieces, *row) for row in rows],
        proposal_entropy=entropy,
        uniform_entropy=uniform,
        collapsed=entropy < COLLAPSED * uniform,
        rates=rates,
    )


def _draw(
    model: AnyPretrainingModel, method: Method, sequences: Sequences, context: masking.MaskContext, count: int,
    length: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Returns held-out tokens, and where they are maskable and masked; log q; and nats at masks, NaN without a head."""
    device = model.encoder.tokens.weight.device
    count = min(count, len(sequences))
    # spread over the validation set, so that sentences come from different documents
    chosen = torch.from_numpy(np.linspace(0, len(sequences) - 1, count).astype(np.int64))
    tokens_BL = load_batch(sequences, chosen)[:, :length]
    maskable_BL = masking.maskable_positions(tokens_BL)
    attention_mask_BL = attention_mask(tokens_BL, PAD, device)
    if method.proposal:
        assert isinstance(model, PretrainingModel)
        own_BL = model.propose(tokens_BL.to(device), attention_mask_BL, maskable_BL.to(device)).cpu()
        log_q_BL = masking.mixed_with_uniform(own_BL, maskable_BL, method.proposal.uniform_mix)
    else:
        own_BL = log_q_BL = masking.uniform_log_q(maskable_BL)
    noise = masking.MaskNoise.draw(torch.Generator().manual_seed(derive_seed(SEED, "figure 2")), *tokens_BL.shape)
    masks = masking.draw_masks(method, tokens_BL, noise, context, own_BL if method.proposal else None)
    masked_BL = masks.masked(tokens_BL)
    loss_BL = torch.full_like(log_q_BL, torch.nan)
    if isinstance(model, PretrainingModel):
        hidden_BL = torch.where(masked_BL, MASK, tokens_BL).to(device)
        logits_NV = model.token_logits(hidden_BL, attention_mask_BL, masks.positions_BK.to(device)).float().cpu()
        targets_BK = tokens_BL.gather(1, masks.positions_BK)
        loss_BK = F.cross_entropy(logits_NV, targets_BK.flatten(), reduction="none").view_as(targets_BK)
        loss_BL = torch.zeros_like(log_q_BL).scatter_add(1, masks.positions_BK, loss_BK * masks.valid_BK)
    return tokens_BL, maskable_BL, masked_BL, log_q_BL, loss_BL


def _rates(
    tokens_BL: Tensor, maskable_BL: Tensor, masked_BL: Tensor, buckets: "TokenBuckets"
) -> dict[str, dict[str, tuple[int, int]]]:
    """Returns the numbers of masked and of all maskable tokens, by decile of frequency, position, and kind of word."""
    lengths_B1 = (tokens_BL != PAD).sum(dim=1, keepdim=True)
    tenth_BL = (DECILES * torch.arange(tokens_BL.shape[1]) // lengths_B1).clamp(max=DECILES - 1)
    tenths = [str(number) for number in range(1, DECILES + 1)]
    groups = {
        "decile": (buckets.decile_V[tokens_BL], tenths),
        "position": (tenth_BL, tenths),
        "kind": (word_kinds(buckets, tokens_BL), ["function", "content", "other"]),
    }
    return {
        what: {
            name: (int((masked_BL & at_BL).sum()), int(at_BL.sum()))
            for number, name in enumerate(names)
            if (at_BL := maskable_BL & (group_BL == number)).any()
        }
        for what, (group_BL, names) in groups.items()
    }


def tag_rates(
    tokenizer: Path, pipeline: str, tokens_BL: list[list[int]], masked_BL: list[list[bool]]
) -> dict[str, tuple[int, int]]:
    """Returns the numbers of masked and of all tokens by their word's universal part of speech.

    Returns {} if neither `pipeline` (a name or path) nor, without one, TAGGER is installed, or if it doesn't tag.
    """
    if not pipeline and find_spec(TAGGER) is None:
        return {}
    import spacy
    from spacy.tokens import Doc

    try:
        nlp = spacy.load(pipeline or TAGGER, exclude=["parser", "senter", "ner", "lemmatizer"])
    except OSError:
        return {}
    pieces, counts, masks = load_tokenizer(tokenizer), Counter[str](), Counter[str]()
    for row in zip(tokens_BL, masked_BL, strict=True):
        words, members = list[str](), list[tuple[int, bool]]()
        for token, masked in (pair for pair in zip(*row, strict=True) if pair[0] not in (PAD, CLS, SEP)):
            text, begins = word_part(pieces, token)
            words += [text] if begins or not words else [words.pop() + text]
            members.append((len(words) - 1, masked))
        tags = [word.pos_ for word in nlp(Doc(nlp.vocab, words=[word or "-" for word in words]))]
        counts.update(tags[number] for number, _ in members)
        masks.update(tags[number] for number, masked in members if masked)
    return {tag: (masks[tag], n) for tag, n in sorted(counts.items()) if tag}


def _words(tokenizer: Any, tokens_L: Tensor, q_L: Tensor, masked_L: Tensor, loss_L: Tensor) -> list[MaskedWord]:
    """Returns the sequence's words, each joined from its tokens."""
    words: list[MaskedWord] = []
    for token, q, masked, nats in zip(tokens_L.tolist(), q_L.tolist(), masked_L.tolist(), loss_L.tolist(), strict=True):
        if token in (PAD, CLS, SEP):
            continue
        text, begins = word_part(tokenizer, token)
        loss = round(nats, 3) if masked and not math.isnan(nats) else None
        if words and not begins:
            last = words[-1]
            known = [value for value in (last.loss, loss) if value is not None]
            words[-1] = MaskedWord(
                text=last.text + text, probability=last.probability + q, masked=last.masked or masked,
                loss=sum(known) if known else None,
            )  # fmt: skip
        else:
            words.append(MaskedWord(text=text, probability=q, masked=masked, loss=loss))
    return words


@dataclass(frozen=True)
class TokenBuckets:
    """Frequency decile and kind of each token of the vocabulary, [V]."""

    decile_V: Tensor
    """0 for the most frequent tokens, which make up a tenth of the text, ..., 9 for the rarest tenth."""
    begins_V: Tensor
    kind_V: Tensor
    """FUNCTION or CONTENT, assuming that the token is a whole word; OTHER if it contains non-letters."""


def token_buckets(corpus: masking.CorpusFacts) -> TokenBuckets:
    """Returns the buckets of the vocabulary's tokens, with frequencies from the training text."""
    vocab_size, counts_V = corpus.vocab_size, corpus.token_counts.clone()
    counts_V[:FIRST_ORDINARY] = 0
    order_V = counts_V.argsort(descending=True, stable=True)
    sorted_V = counts_V[order_V]
    # a token's midpoint determines its decile: a very frequent token may exceed a tenth on its own
    middle_V = (sorted_V.cumsum(0) - sorted_V / 2) / sorted_V.sum().clamp(min=1)
    decile_V = torch.empty(vocab_size, dtype=torch.long)
    decile_V[order_V] = (DECILES * middle_V).long().clamp(max=DECILES - 1)
    pieces = load_tokenizer(corpus.artifacts.path(corpus.manifest.tokenizer))
    texts = [word_part(pieces, token)[0].lower() for token in range(vocab_size)]
    kinds = [FUNCTION if text in FUNCTION_WORDS else CONTENT if text.isalpha() else OTHER for text in texts]
    return TokenBuckets(decile_V, corpus.word_starts, torch.tensor(kinds))


def word_kinds(buckets: TokenBuckets, tokens_BL: Tensor) -> Tensor:
    """Returns the kind of each position [B, L]: parts of longer words, punctuation and special tokens are OTHER."""
    ordinary_BL = tokens_BL >= FIRST_ORDINARY
    begins_BL = buckets.begins_V[tokens_BL]
    continues_BL = F.pad((ordinary_BL & ~begins_BL)[:, 1:], (0, 1))
    return torch.where(ordinary_BL & begins_BL & ~continues_BL, buckets.kind_V[tokens_BL], OTHER)
