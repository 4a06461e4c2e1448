"""An imported model and its tokenizer give the same results as in `transformers`."""

import json
import shlex
import shutil
import subprocess
import sys
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
from tests.huggingface.hf_folders import ROBERTA_SPECIALS, SIZES, roberta, save_bert, save_roberta, wordpiece
from tests.prepare_corpus.corpora import prose

WORDS, DENSE = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.output.dense.weight"
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
    names = "not part of encoder or masked-language-model head, so not imported: bert.pooler.dense.bias, bert.pooler"
    assert names in warnings[0]
    if architecture == "BertForPreTraining":
        assert len(warnings) == 1 and "cls.seq_relationship.weight" in warnings[0]
        check_same_function(artifacts, row, tmp_path / "bert")
        return
    assert "no masked-language-model head" in warnings[1]
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
    save_bert(folder, tokenizer=tokenizer, vocab_size=192)
    row, warnings = import_folder(artifacts, folder, None)
    assert row.vocab_size == tokenizer.get_vocab_size()
    assert "belong to no token" in warnings[0]
    check_same_function(artifacts, row, folder)
    pieces = load_tokenizer(artifacts.path(row.tokenizer))
    assert pieces.encode("ba garhi", add_special_tokens=False).tokens[-1] == "garhi"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "electra"}, "model_type 'electra' is not supported, only 'bert', 'roberta', 'modernbert'"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantized weights"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported, only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"type_vocab_size": 3}, "type_vocab_size 3 is not supported"),
        ({"hidden_size": None}, "hidden_size must be given"),
        ({"num_attention_heads": 3}, r"config.json: hidden \(\d+\) must be a multiple of heads"),
        ({"num_hidden_layers": 3}, "no weight bert.encoder.layer.2"),
        ({"num_hidden_layers": 1}, "bert.encoder.layer.1.attention.output.LayerNorm.bias is not part of the encoder"),
        ({"intermediate_size": 33}, r"shape \(32,\), but config.json implies \(33,\)|shape \(32, 16\)"),
        ({"vocab_size": 192}, r"word_embeddings.weight has shape"),
        ({"vocab_size": 161}, "the tokenizer has 160 tokens, but config.json's vocab_size is 161"),
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
        ({"added_tokens": [{**state["added_tokens"][0], "id": 900, "content": "x"}]}, "has id 900, but 160 comes"),
        ({"post_processor": {"type": "Odd"}}, "not a readable tokenizer"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps(state | change))
        check_error(message)
    (folder / "tokenizer.json").unlink()
    check_error("has no tokenizer.json for its")
    (folder / "tokenizer_config.json").unlink()
    check_error("has no tokenizer.json or vocab.txt")
    (folder / "vocab.txt").write_bytes(b"\xff\n")
    check_error("vocab.txt is not a readable tokenizer")
    (folder / "vocab.txt").write_text("\n".join((*SPECIALS, "a", "a")))
    check_error("'a' has id 6, but 5 comes next")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text("{")
    check_error("tokenizer.json: not JSON")
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "model.safetensors").write_bytes(b"broken")
    check_error("not a readable safetensors file")
    (folder / "model.safetensors").unlink()
    check_error("model.safetensors does not exist: save the weights as safetensors")
    (folder / "config.json").unlink()
    check_error("config.json does not exist")
    with pytest.raises(UsageError, match="--name"):
        import_folder(artifacts, folder, "a/b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"bert.encoder.layer.0.scale": torch.ones(1)}, "layer.0.scale is not part of the encoder"),
        (lambda w: w | {"bert.encoder.layer.2.output.dense.bias": torch.ones(16)}, "layer.2.output.dense.bias is not"),
        (lambda w: w | {"cls.predictions.decoder.weight": w[WORDS] + 1}, "decoder.weight differs from .*tied to"),
        (lambda w: w | {"cls.predictions.decoder.bias": w["cls.predictions.bias"] + 1}, "decoder.bias differs from"),
        (lambda w: w | {DENSE: w[DENSE].to(torch.int8)}, f"{DENSE} is int8: quantized weights are not supported"),
        (lambda w: w | {DENSE: w[DENSE].to(torch.float8_e4m3fn)}, "is float8_e4m3fn: quantized"),
        (lambda w: w | {DENSE: w[DENSE] / 0}, f"{DENSE} contains values that are not finite"),
        (lambda w: w | {"pooler.dense.weight": torch.ones(2), "bert.pooler.dense.weight": torch.ones(2)}, "twice"),
        (lambda w: {n: t for n, t in w.items() if n != DENSE}, f"there is no weight {DENSE}"),
    ],
)  # fmt: skip
def test_weights_are_checked(change: Any, message: str, tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(InputError, match=message) as caught:
        import_folder(artifacts, tmp_path / "bert", None)
    assert str(tmp_path / "bert") in str(caught.value)
    assert not list(artifacts.root.rglob("tensors.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_copies_buffers_and_other_floating_types(dtype: torch.dtype, tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    weights = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    weights["cls.predictions.decoder.weight"] = weights[WORDS].clone()
    weights["bert.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(weights, file)
    row, warnings = import_folder(artifacts, tmp_path / "bert", None)
    assert warnings == []
    stored = load_checkpoint(artifacts.path(row.path))[0]["encoder.stack.layers.0.ffn_out.weight"]
    assert torch.equal(stored, weights[DENSE].float())


def test_sharded_weights(tmp_path: Path, artifacts: Artifacts) -> None:
    model = save_bert(tmp_path / "bert")
    folder = tmp_path / "sharded"
    shutil.copytree(tmp_path / "bert", folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="5KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1 and not (folder / "model.safetensors").exists()
    row, _ = import_folder(artifacts, folder, "bert")
    assert row.fingerprint == import_folder(artifacts, tmp_path / "bert", None)[0].fingerprint
    shards[0].write_bytes(shards[1].read_bytes())
    with pytest.raises(InputError, match=rf"index.json lists .*, but {shards[0].name} doesn't contain it"):
        import_folder(artifacts, folder, None)
    shards[0].unlink()
    with pytest.raises(InputError, match=rf"{shards[0].name} does not exist, but .*index.json lists it"):
        import_folder(artifacts, folder, None)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(
        InputError, match=r"has neither model.safetensors nor model.safetensors.index.json, which lists"
    ):
        import_folder(artifacts, folder, None)


def test_pickled_weights_are_refused_with_a_command_that_converts_them(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = tmp_path / "pickled bert"
    save_bert(folder)
    expected = import_folder(artifacts, folder, "bert")[0]
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights | {"classifier.weight": weights[DENSE].T}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="convert it with: python -c") as caught:
        import_folder(artifacts, folder, "bert")
    code, argument = shlex.split(str(caught.value).partition("python -c ")[2])
    subprocess.run([sys.executable, "-c", code, argument], check=True)
    row, warnings = import_folder(artifacts, folder, "bert")
    assert row == expected and "classifier.weight" in warnings[0]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_git_lfs_pointer_is_named(name: str, tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "bert")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "bert" / name).write_text(pointer)
    with pytest.raises(InputError, match=rf"{name} is a Git LFS pointer, .*: run `git lfs pull` in .*bert$"):
        import_folder(artifacts, tmp_path / "bert", None)


@pytest.mark.parametrize("architecture", ["RobertaForMaskedLM", "RobertaModel", "RobertaForSequenceClassification"])
def test_roberta_gives_the_same_results(architecture: str, tmp_path: Path, artifacts: Artifacts) -> None:
    model = save_roberta(tmp_path / "roberta", architecture)
    row, warnings = import_folder(artifacts, tmp_path / "roberta", None)
    assert (row.encoder["max_length"], row.encoder["norm_eps"]) == (24, 1e-5)
    pieces, ours = load_ours(artifacts, row)
    theirs = roberta()
    old = [theirs.token_to_id(dict(zip(SPECIALS, ROBERTA_SPECIALS, strict=True)).get(token, token))
           for token in map(pieces.id_to_token, range(row.vocab_size))]  # fmt: skip
    ids = torch.tensor([pieces.encode("Ba co abde (fu)!").ids])
    assert ids[0, 0] == CLS and ids[0, -1] == SEP
    assert [old[number] for number in ids[0]] == theirs.encode("Ba co abde (fu)!").ids
    everything = torch.ones_like(ids, dtype=torch.bool)
    old_ids = torch.tensor(old)[ids]
    with torch.no_grad():
        if architecture == "RobertaForMaskedLM":
            assert warnings == []
            expected = their_logits(model, old_ids, everything)[:, old]
            assert torch.allclose(our_logits(ours, ids, everything), expected, atol=1e-4)
            return
        hidden_BLH = getattr(model, "roberta", model)(input_ids=old_ids).last_hidden_state
        assert torch.allclose(ours.encoder(ids, everything), hidden_BLH, atol=1e-4)


def test_sizes_are_recorded(tmp_path: Path, artifacts: Artifacts) -> None:
    save_bert(tmp_path / "bert", hidden_dropout_prob=0.2)
    row, _ = import_folder(artifacts, tmp_path / "bert", None)
    assert list(row.encoder.values()) == [2, 16, 2, 32, SIZES["max_position_embeddings"], 0.2, 0.1]
