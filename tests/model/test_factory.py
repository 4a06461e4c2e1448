"""What a method is made of: its model, and what strategies know of the vocabulary."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.factory import build_model, fix_frequencies, token_counts, word_starts
from mapnet_cli.model.proposal import MapNet
from mapnet_cli.model.token_table import TokenTable
from mapnet_cli.text import bpe
from mapnet_cli.text.shards import Sequences
from tests.conftest import small_config


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("bert", type(None)), ("spaced", type(None)), ("mapnet", MapNet), ("adaptive-mapnet", MapNet),
        ("adaptive", TokenTable), ("frequency", TokenTable), ("electra", type(None)),
    ],
)  # fmt: skip
def test_every_method_has_the_proposal_of_its_strategy(method: str, kind: type) -> None:
    model = build_model(small_config(), method, 100)
    assert type(model.proposal) is kind
    assert isinstance(model, Electra) is (method == "electra")


def test_rare_tokens_are_likelier_by_the_square_root_of_their_count(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    manifest = make_corpus(small_config())
    train = Sequences([artifacts.path(name) for name in manifest.train])
    counts_V = token_counts(train, manifest.vocab_size)
    assert counts_V.sum() == sum(len(train[i]) for i in range(len(train)))
    model = build_model(small_config(), "frequency", manifest.vocab_size)
    fix_frequencies(model, train)
    often, rare = (
        int(counts_V[5:].argmax()) + 5,
        int((counts_V[5:] == counts_V[5:][counts_V[5:] > 0].min()).nonzero()[0]) + 5,
    )
    assert isinstance(model.proposal, TokenTable)
    q_L = model.proposal.log_q(torch.tensor([[often, rare]]), torch.ones(1, 2, dtype=torch.bool)).exp()[0]
    assert (q_L[1] / q_L[0]).item() == pytest.approx((counts_V[often] / counts_V[rare]).sqrt().item(), rel=1e-4)


def test_word_starts_are_the_marked_pieces(tmp_path: Path) -> None:
    tokenizer = bpe.train(["lowest lower low newest new"] * 20, 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    begins_V = word_starts(tmp_path / "tokenizer.json", tokenizer.get_vocab_size())
    ids = next(bpe.encode(tokenizer, ["lowest xnew"]))
    pieces = [tokenizer.id_to_token(token) for token in ids]
    assert begins_V[torch.tensor(ids)].tolist() == [piece.startswith("\u2581") for piece in pieces]
    assert begins_V[torch.tensor(ids)].sum() == 2
    assert not begins_V[:5].any()
