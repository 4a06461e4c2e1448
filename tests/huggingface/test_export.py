"""An exported checkpoint is the same model and the same tokenizer in `transformers`."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.report.stage import build
from mapnet_cli.text import bpe
from mapnet_cli.text.normalise import prepare_line
from mapnet_cli.text.special_tokens import CLS, MASK, PAD, SEP, UNK
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.huggingface.conftest import load_theirs, our_logits, padded_batch, run, their_logits, user_config

ODD = (
    "Ba co “den” fu's U.S. garhi, (lumon)!", "cafe\u0301 İstanbul ΟΔΟΣ Straße ǅ ﬁ", "漢字 😀 a\u200bb\u00a0c\x07",
    "▁ ▁▁a  b", "e-mail don't 3.5% <s> &amp;", "",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(pretrained: tuple[Config, Artifacts], folder: Path) -> Path:
    config, artifacts = pretrained
    row = export_checkpoint(config, artifacts, folder / "exported", "mapnet", None, None)
    assert (row.method, row.pretrain_seed, row.step) == ("mapnet", 1, 10)
    return folder / "exported"


@pytest.fixture(scope="module")
def theirs(exported: Path) -> tuple[Any, Any]:
    return load_theirs(exported)


def tokenizer_path(config: Config, artifacts: Artifacts) -> Path:
    return artifacts.path(f"{Lineage(config, artifacts).corpus.key}/tokenizer.json")


def test_the_logits_are_equal(pretrained: tuple[Config, Artifacts], theirs: tuple[Any, Any]) -> None:
    config, artifacts = pretrained
    tensors, facts = load_checkpoint(
        artifacts.path(f"{Lineage(config, artifacts).pretraining('mapnet', 1).key}/step10")
    )
    ours = PretrainingModel(config.encoder, facts["vocab_size"], config.proposal)
    ours.load_state_dict(tensors)
    tokens_BL, attention_mask_BL = padded_batch(facts["vocab_size"], config.encoder.max_length)
    expected = their_logits(theirs[1], tokens_BL, attention_mask_BL)
    assert expected.shape[1] == facts["vocab_size"]
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


def test_the_token_ids_are_equal(pretrained: tuple[Config, Artifacts], theirs: tuple[Any, Any], folder: Path) -> None:
    config, artifacts = pretrained
    tokenizer = theirs[0]
    ours = bpe.load(tokenizer_path(config, artifacts))
    books = [line for path in sorted((folder / "books").rglob("*.txt")) for line in path.read_text().splitlines()]
    prepared = [prepare_line(text, config.corpus.lowercase) for text in (*books, *ODD)]
    for text, ids in zip(prepared, bpe.encode(ours, prepared), strict=True):
        assert tokenizer(text)["input_ids"] == [CLS, *ids, SEP], text
    assert UNK not in tokenizer(prepared[: len(books)])["input_ids"][0]
    shouted = tokenizer(prepared[0].upper())["input_ids"]
    assert shouted == tokenizer(prepared[0])["input_ids"], "the tokenizer lower-cases"


def test_a_pair_has_fairseqs_layout(theirs: tuple[Any, Any]) -> None:
    tokenizer = theirs[0]
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("ba co", "den"))
    pair = tokenizer("ba co", "den", return_token_type_ids=True)
    assert pair["input_ids"] == [CLS, *one, SEP, SEP, *two, SEP]
    assert set(pair["token_type_ids"]) == {0}


def test_what_the_tokenizer_is(theirs: tuple[Any, Any], pretrained: tuple[Config, Artifacts]) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = theirs[0]
    assert type(tokenizer) is PreTrainedTokenizerFast
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [getattr(tokenizer, f"{name}_token_id") for name in names] == [PAD, UNK, CLS, SEP, MASK]
    assert tokenizer.model_max_length == pretrained[0].encoder.max_length


def test_a_mask_in_a_text_is_one_token_and_changes_no_other(theirs: tuple[Any, Any]) -> None:
    tokenizer, model = theirs
    left, right = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("ba co", "den fu"))
    batch = tokenizer(f"ba co {tokenizer.mask_token} den fu", return_tensors="pt")
    assert batch["input_ids"][0].tolist() == [CLS, *left, MASK, *right, SEP]
    with torch.no_grad():
        logits = model(**batch).logits
    best = int(logits[0, 1 + len(left)].argmax())
    assert tokenizer.decode([best]).strip()


def test_the_card_says_what_it_is_and_its_snippet_prepares_text(
    exported: Path, pretrained: tuple[Config, Artifacts]
) -> None:
    card = (exported / "README.md").read_text()
    config, artifacts = pretrained
    for words in ("mapnet at step 10", Lineage(config, artifacts).corpus.fingerprint, "Not fine-tuned yet", "torch"):
        assert words in card
    (snippet,) = re.findall(r"```python\n(import unicodedata.*?)```", card, re.S)
    names: dict[str, Any] = {}
    exec(snippet, names)
    for text in ODD:
        assert names["prepare"](text) == prepare_line(text, config.corpus.lowercase)


def test_the_card_has_the_scores_once_they_are_there(pretrained: tuple[Config, Artifacts], folder: Path) -> None:
    artifacts = pretrained[1]
    config = user_config(
        folder,
        'methods=["bert"]',
        'finetune.tasks=["RTE","MNLI"]',
        "finetune.seeds=[1,2]",
        "finetune.batch_sizes=[4,8]",
    )
    run(config, artifacts, "finetune-glue")
    row = export_checkpoint(config, artifacts, folder / "scored", None, 1, 6)
    assert row.step == 6
    card = (folder / "scored" / "README.md").read_text()
    table = build(config, artifacts).tasks
    (ours,) = (line for line in table.rows if (line[0].text, line[1].text) == ("BERT", "6"))
    found = re.findall(r"\| (?:RTE|MNLI-m|MNLI-mm) \| accuracy(?:-mm)? \| (\d+\.\d\d) \|", card)
    assert found == [cell.text.split()[0] for cell in ours[2:5]], "the same as the report's"
