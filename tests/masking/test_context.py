"""Corpus statistics for strategies: token counts, word starts, and the contexts computed from them."""

from collections.abc import Callable

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.masking.context import CorpusFacts, rarity, words
from mapnet_cli.model import build_model
from mapnet_cli.model.proposal import TokenTable
from mapnet_cli.text.bpe import encode_lines, train_tokenizer
from tests.conftest import small_config


def test_token_probability_falls_with_the_square_root_of_its_count(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    corpus = CorpusFacts(artifacts, make_corpus(small_config()))
    counts_V = corpus.token_counts
    assert counts_V.sum() == sum(len(corpus.train[i]) for i in range(len(corpus.train)))
    model = build_model(small_config(), "frequency", corpus.vocab_size)
    assert isinstance(model.proposal, TokenTable)
    weights_V = rarity(corpus).log_weight_V
    assert weights_V is not None
    model.proposal.log_weight_V.copy_(weights_V)
    common, rare = (
        int(counts_V[5:].argmax()) + 5,
        int((counts_V[5:] == counts_V[5:][counts_V[5:] > 0].min()).nonzero()[0]) + 5,
    )
    q_L = model.proposal.log_q(torch.tensor([[common, rare]]), torch.ones(1, 2, dtype=torch.bool)).exp()[0]
    assert (q_L[1] / q_L[0]).item() == pytest.approx((counts_V[common] / counts_V[rare]).sqrt().item(), rel=1e-4)


def test_word_starts_are_the_pieces_with_a_word_marker(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    manifest = make_corpus(small_config())
    tokenizer = train_tokenizer(["lowest lower low newest new"] * 20, 300)
    tokenizer.save(str(artifacts.path(manifest.tokenizer)))
    manifest = manifest.model_copy(update={"vocab_size": tokenizer.get_vocab_size()})
    corpus = CorpusFacts(artifacts, manifest)
    begins_V = corpus.word_starts
    assert len(begins_V) == manifest.vocab_size
    ids = next(encode_lines(tokenizer, ["lowest xnew"]))
    pieces = [tokenizer.id_to_token(token) for token in ids]
    assert begins_V[torch.tensor(ids)].tolist() == [piece.startswith("\u2581") for piece in pieces]
    assert begins_V[torch.tensor(ids)].sum() == 2
    assert not begins_V[:5].any()
    starts = words(corpus).unit_starts
    assert starts is not None
    tokens_BL = torch.tensor([[2, *ids, 3]])
    assert starts(tokens_BL).tolist() == begins_V[tokens_BL].tolist()
