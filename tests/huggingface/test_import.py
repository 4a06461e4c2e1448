"""An imported model and its tokenizer give the same results as in `transformers`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from mapnet_cli.config import Transformer
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import InputError, UsageError
from mapnet_cli.core.records import Imported
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.bpe import encode_lines, load_tokenizer
from mapnet_cli.text.words import CLS, SEP, SPECIALS
from mapnet_cli.training.checkpoint import SEGMENT, load_checkpoint
from tests.huggingface.conftest import load_theirs, our_logits, padded_batch, their_logits, transformers
from tests.huggingface.hf_folders import SIZES, save_bert, wordpiece
from tests.prepare_corpus.corpora import prose

TEXTS = (prose(1, 1), "Ba CO den, (fu)!", "cafe\u0301 İstanbul 漢字 😀", "", "ba", "unheardof words ##ba [x]")


def load_ours(artifacts: Artifacts, row: Imported) -> tuple[Tokenizer, PretrainingModel]:
    model = PretrainingModel(Transformer(**row.encoder), row.vocab_size, None)
    tensors, _ = load_checkpoint(artifacts.path(row.path))
    tensors.pop(SEGMENT, None)  # for fine-tuning only
    model.load_state_dict(tensors)
    return load_tokenizer(artifacts.path(row.tokenizer)), model.eval()


def check_same_function(
    artifacts: Artifacts, row: Imported, folder: Path, model: Any = None, atol: float = 1e-4
) -> None:
    """Checks that token ids and logits at all positions are equal on the same texts."""
    with transformers() as library:
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
    model = model or load_theirs(folder)[1]
    pieces, ours = load_ours(artifacts, row)
    vocab = pieces.get_vocab()
    old_ids = [tokenizer.get_vocab()[token] for token in sorted(vocab, key=vocab.__getitem__)]
    for text, ids in zip(TEXTS, encode_lines(pieces, TEXTS), strict=True):
        expected = tokenizer(text, add_special_tokens=True, padding=False, truncation=False)["input_ids"]
        sequence = [CLS, *ids, SEP][: row.encoder["max_length"]]
        expected = expected[: len(sequence)]
        assert [old_ids[token] for token in sequence] == expected, text
        everything = torch.ones(1, len(sequence), dtype=torch.bool)
        theirs = their_logits(model, torch.tensor([expected]), everything)[:, old_ids]
        assert torch.allclose(our_logits(ours, torch.tensor([sequence]), everything), theirs, atol=atol), text


def test_model_and_tokenizer_give_the_same_results(tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "tiny bert")
    row, warnings = import_folder(artifacts, tmp_path / "tiny bert", "tiny")
    assert warnings == []
    assert row.path.startswith("import/tiny-")
    check_same_function(artifacts, row, tmp_path / "tiny bert")
    pieces = load_tokenizer(artifacts.path(row.tokenizer))
    assert [pieces.token_to_id(special) for special in SPECIALS] == [0, 1, 2, 3, 4]
    with_specials = pieces.encode("ba co").ids
    assert (with_specials[0], with_specials[-1]) == (CLS, SEP)
    artifacts.verify(row.path)
    assert len(artifacts.require(row.path).files) == 3
    assert import_folder(artifacts, tmp_path / "tiny bert", "tiny")[0] == row, "equal content gets the same name"
    assert not list(artifacts.root.rglob(".tmp-*"))


@pytest.mark.parametrize("architecture", ["BertForPreTraining", "BertForSequenceClassification", "BertModel"])
def test_other_heads_are_dropped_and_a_missing_one_is_reported(
    architecture: str, tmp_path: Path, artifacts: Artifacts
) -> None:
    model = save_bert(tmp_path / "bert", architecture)
    row, warnings = import_folder(artifacts, tmp_path / "bert", None)
    assert row.name == "bert"
    if architecture == "BertForPreTraining":
        assert warnings == []
        check_same_function(artifacts, row, tmp_path / "bert")
        return
    assert "no masked-language-model head" in warnings[0]
    _, ours = load_ours(artifacts, row)
    tokens_BL, attention_mask_BL = torch.tensor([[CLS, 4, SEP]]), torch.ones(1, 3, dtype=torch.bool)
    old = [wordpiece().token_to_id(token) for token in ("[CLS]", "[MASK]", "[SEP]")]
    with torch.no_grad():
        theirs = getattr(model, "bert", model)(input_ids=torch.tensor([old])).last_hidden_state
        assert torch.allclose(ours.encoder(tokens_BL, attention_mask_BL), theirs, atol=1e-4)


def test_old_names_and_vocab_txt(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = tmp_path / "bert"
    model = save_bert(folder)
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
           for n, t in load_file(folder / "model.safetensors").items()}  # fmt: skip
    assert any(name.endswith("gamma") for name in old)
    save_file(old, folder / "model.safetensors")
    vocab = wordpiece().get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    row, _ = import_folder(artifacts, folder, None)
    check_same_function(artifacts, row, folder, model)


def test_export_import_round_trip(pretrained: Lineage, tmp_path: Path) -> None:
    config, artifacts = pretrained.config, pretrained.artifacts
    checkpoint = export_checkpoint(pretrained, tmp_path / "out", "bert", None, None)
    row, warnings = import_folder(artifacts, tmp_path / "out", "back")
    assert warnings == []
    tensors, facts = load_checkpoint(artifacts.path(checkpoint.path))
    ours = PretrainingModel(config.encoder, facts["vocab_size"], None)
    ours.load_state_dict(tensors)
    _, again = load_ours(artifacts, row)
    batch = padded_batch(facts["vocab_size"], config.encoder.max_length)
    assert torch.equal(our_logits(ours, *batch), our_logits(again, *batch))
    check_same_function(artifacts, row, tmp_path / "out")


def test_rows_without_a_token_are_dropped_and_added_tokens_kept(tmp_path: Path, artifacts: Artifacts) -> None:
    tokenizer = wordpiece()
    tokenizer.add_tokens([AddedToken("garhi", normalized=False)])
    folder = tmp_path / "padded"
    save_bert(folder, tokenizer=tokenizer, vocab_size=200)
    row, warnings = import_folder(artifacts, folder, None)
    assert row.vocab_size == tokenizer.get_vocab_size()
    assert "belong to no token" in warnings[0]
    check_same_function(artifacts, row, folder)
    pieces = load_tokenizer(artifacts.path(row.tokenizer))
    assert pieces.encode("ba garhi", add_special_tokens=False).tokens[-1] == "garhi"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta' is not supported, only 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported, only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"layer_norm_eps": 1e-5}, "only 1e-12"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"hidden_size": None}, "hidden_size must be given"),
        ({"num_attention_heads": 3}, "multiple of heads"),
        ({"num_hidden_layers": 3}, "no weight bert.encoder.layer.2"),
        ({"intermediate_size": 33}, r"shape \(32,\), but config.json implies \(33,\)|shape \(32, 16\)"),
        ({"vocab_size": 161}, r"word_embeddings.weight has shape"),
        ({"vocab_size": 20}, "the tokenizer has"),
        ({"max_position_embeddings": 25}, "position_embeddings"),
    ],
)
def test_unsupported_config_raises(changes: dict[str, Any], message: str, tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "bert")
    file = tmp_path / "bert" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        import_folder(artifacts, tmp_path / "bert", None)
    assert not list(artifacts.root.rglob("tensors.safetensors"))


def test_missing_or_broken_files_raise(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = tmp_path / "bert"
    save_bert(folder)

    def check_error(message: str) -> None:
        with pytest.raises(InputError, match=message):
            import_folder(artifacts, folder, None)

    tokenizer = (folder / "tokenizer.json").read_text()
    state = json.loads(tokenizer)
    for change, message in (
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "'Unigram' is not supported, only WordPiece or BPE"),
        ({"added_tokens": [], "model": {**state["model"], "vocab": {"a": 0}}}, r"has no \[PAD\] \[UNK\]"),
        ({"added_tokens": [{**state["added_tokens"][0], "id": 900, "content": "x"}]}, "are not exactly 0 to"),
        ({"post_processor": {"type": "Odd"}}, "not a readable tokenizer"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps(state | change))
        check_error(message)
    (folder / "tokenizer.json").unlink()
    check_error("neither tokenizer.json nor vocab.txt")
    (folder / "vocab.txt").write_bytes(b"\xff\n")
    check_error("not UTF-8")
    (folder / "vocab.txt").write_text("\n".join((*SPECIALS, "a", "a")))
    check_error("are not exactly 0 to")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text("{")
    check_error("not valid JSON")
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "model.safetensors").write_bytes(b"broken")
    check_error("not a readable safetensors file")
    (folder / "model.safetensors").unlink()
    check_error("only weights in a single safetensors file")
    (folder / "config.json").unlink()
    check_error("config.json does not exist")
    with pytest.raises(UsageError, match="--name"):
        import_folder(artifacts, folder, "a/b")


def test_sizes_are_recorded(tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "bert", hidden_dropout_prob=0.2)
    row, _ = import_folder(artifacts, tmp_path / "bert", None)
    assert list(row.encoder.values()) == [2, 16, 2, 32, SIZES["max_position_embeddings"], 0.2, 0.1]
