"""An exported checkpoint gives the same logits and token ids in `transformers`."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.report.stage import build
from mapnet_cli.text.bpe import encode_lines, load_tokenizer
from mapnet_cli.text.normalise import prepare_line
from mapnet_cli.text.words import CLS, MASK, PAD, SEP, UNK
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.huggingface.conftest import load_theirs, our_logits, padded_batch, run, their_logits, user_config

ODD = (
    "Ba co “den” fu's U.S. garhi, (lumon)!", "cafe\u0301 İstanbul ΟΔΟΣ Straße ǅ ﬁ", "漢字 😀 a\u200bb\u00a0c\x07",
    "▁ ▁▁a  b", "e-mail don't 3.5% <s> &amp;", "",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(pretrained: Lineage, folder: Path) -> Path:
    row = export_checkpoint(pretrained, folder / "exported", "mapnet", None, None)
    assert (row.method, row.pretrain_seed, row.step) == ("mapnet", 1, 10)
    return folder / "exported"


@pytest.fixture(scope="module")
def theirs(exported: Path) -> tuple[Any, Any]:
    return load_theirs(exported)


def test_logits_are_equal(pretrained: Lineage, theirs: tuple[Any, Any]) -> None:
    config, key = pretrained.config, pretrained.pretraining("mapnet", 1).key
    tensors, facts = load_checkpoint(pretrained.artifacts.path(f"{key}/step10"))
    ours = PretrainingModel(config.encoder, facts["vocab_size"], config.proposal)
    ours.load_state_dict(tensors)
    tokens_BL, attention_mask_BL = padded_batch(facts["vocab_size"], config.encoder.max_length)
    expected = their_logits(theirs[1], tokens_BL, attention_mask_BL)
    assert expected.shape[1] == facts["vocab_size"]
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


def test_token_ids_are_equal(pretrained: Lineage, theirs: tuple[Any, Any], folder: Path) -> None:
    tokenizer, lowercase = theirs[0], pretrained.config.corpus.lowercase
    ours = load_tokenizer(pretrained.artifacts.path(f"{pretrained.corpus.key}/tokenizer.json"))
    books = [line for path in sorted((folder / "books").rglob("*.txt")) for line in path.read_text().splitlines()]
    prepared = [prepare_line(text, lowercase) for text in (*books, *ODD)]
    for text, ids in zip(prepared, encode_lines(ours, prepared), strict=True):
        assert tokenizer(text)["input_ids"] == [CLS, *ids, SEP], text
    assert UNK not in tokenizer(prepared[: len(books)])["input_ids"][0]
    shouted = tokenizer(prepared[0].upper())["input_ids"]
    assert shouted == tokenizer(prepared[0])["input_ids"], "the tokenizer lower-cases"


def test_pairs_have_the_fairseq_layout(theirs: tuple[Any, Any]) -> None:
    tokenizer = theirs[0]
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("ba co", "den"))
    pair = tokenizer("ba co", "den", return_token_type_ids=True)
    assert pair["input_ids"] == [CLS, *one, SEP, SEP, *two, SEP]
    assert set(pair["token_type_ids"]) == {0}


def test_tokenizer_class_and_special_tokens(theirs: tuple[Any, Any], pretrained: Lineage) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = theirs[0]
    assert type(tokenizer) is PreTrainedTokenizerFast
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [getattr(tokenizer, f"{name}_token_id") for name in names] == [PAD, UNK, CLS, SEP, MASK]
    assert tokenizer.model_max_length == pretrained.config.encoder.max_length


def test_mask_in_text_is_one_token_and_changes_no_other(theirs: tuple[Any, Any]) -> None:
    tokenizer, model = theirs
    left, right = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("ba co", "den fu"))
    batch = tokenizer(f"ba co {tokenizer.mask_token} den fu", return_tensors="pt")
    assert batch["input_ids"][0].tolist() == [CLS, *left, MASK, *right, SEP]
    with torch.no_grad():
        logits = model(**batch).logits
    best = int(logits[0, 1 + len(left)].argmax())
    assert tokenizer.decode([best]).strip()


def test_model_card_has_facts_and_a_working_snippet(exported: Path, pretrained: Lineage) -> None:
    card = (exported / "README.md").read_text()
    for text in ("mapnet at step 10", pretrained.corpus.fingerprint, "Not fine-tuned yet", "torch"):
        assert text in card
    (snippet,) = re.findall(r"```python\n(import unicodedata.*?)```", card, re.S)
    names: dict[str, Any] = {}
    exec(snippet, names)
    for text in ODD:
        assert names["prepare"](text) == prepare_line(text, pretrained.config.corpus.lowercase)


def test_model_card_has_scores_after_fine_tuning(pretrained: Lineage, folder: Path) -> None:
    config = user_config(
        folder,
        'methods=["bert"]',
        'finetune.tasks=["RTE","MNLI"]',
        "finetune.seeds=[1,2]",
        "finetune.batch_sizes=[4,8]",
    )
    lineage = Lineage(config, pretrained.artifacts)
    run(lineage, "finetune-glue")
    row = export_checkpoint(lineage, folder / "scored", None, 1, 6)
    assert row.step == 6
    card = (folder / "scored" / "README.md").read_text()
    table = build(lineage).tasks
    (ours,) = (line for line in table.rows if (line[0].text, line[1].text) == ("BERT", "6"))
    found = re.findall(r"\| (?:RTE|MNLI-m|MNLI-mm) \| accuracy(?:-mm)? \| (\d+\.\d\d) \|", card)
    assert found == [cell.text.split()[0] for cell in ours[2:5]], "same as in the report"
