"""An imported tokenizer gives the ids of `AutoTokenizer` on the same folder, or an error that names both files."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mapnet_cli.core.errors import InputError
from mapnet_cli.huggingface.tokenizer_files import read_tokenizer
from mapnet_cli.text.bpe import word_part
from mapnet_cli.text.words import SPECIALS
from tests.huggingface.conftest import transformers
from tests.huggingface.hf_folders import roberta, roberta_vocabulary

BERT, ROBERTA = {"model_type": "bert"}, {"model_type": "roberta"}
ORDER = ("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdeABCDEéÉüñcç漢字.,'()\u0301"
WORDS = ("ab", "bad", "Ab", "dé", "de", "漢字")
ADDED = {"[ENT]": "[ENT]", "bad-": "bad-", "E1": "E1"}


def vocabulary() -> dict[str, int]:
    pieces = [*ORDER, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS, "##b", "##de", "e\u0301"]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def texts() -> list[str]:
    """Returns 300 random texts in which every switch and added token matters."""
    draw = random.Random(1)
    pieces = (*LETTERS, *WORDS, " ", " ", " ", "\u00a0", "\u200b", *ADDED, "[unused0]")
    return ["".join(draw.choices(pieces, k=draw.randint(1, 30))) for _ in range(300)]


def bert_json(**normalizer: Any) -> dict[str, Any]:
    """Returns tokenizer.json of a BERT."""
    vocab = vocabulary()
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return dict(json.loads(tokenizer.to_str()))


def write(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def check_equal_ids(folder: Path, config: dict[str, Any]) -> list[str]:
    """Checks ids, and ids and segments of pairs, of 300 texts; returns the warnings."""
    with transformers() as library:
        theirs = library.AutoTokenizer.from_pretrained(folder)
    ours, old_ids, warnings = read_tokenizer(folder, config)
    assert [ours.token_to_id(special) for special in SPECIALS] == [0, 1, 2, 3, 4]
    assert len(theirs) == len(old_ids)
    ours.encode_special_tokens = True
    every = texts()
    for text, second in zip(every, reversed(every), strict=True):
        one, two = ours.encode(text), ours.encode(text, second)
        assert [old_ids[number] for number in one.ids] == theirs(text)["input_ids"], text
        pair = theirs(text, second, return_token_type_ids=True)
        assert ([old_ids[n] for n in two.ids], two.type_ids) == (pair["input_ids"], pair["token_type_ids"])
    return warnings


def bert_folder(folder: Path, source: str, **files: Any) -> Path:
    """Writes config, vocabulary (in vocab.txt, tokenizer.json or that of the general class) and other files."""
    settings = dict(files.pop("tokenizer_config", {}))
    if source == "vocab.txt":
        files["vocab.txt"] = "\n".join(vocabulary()) + "\n"
    else:
        files.setdefault("tokenizer", bert_json())
    if source == "general":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    named = {name if "." in name else f"{name}.json": content for name, content in files.items()}
    return write(folder, {"config.json": BERT, "tokenizer_config.json": settings, **named})


@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize(
    "switches",
    [
        {}, {"strip_accents": True}, {"strip_accents": False}, {"strip_accents": None, "do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False}, {"do_lower_case": True},
    ],
)  # fmt: skip
def test_switches(kind: str | None, switches: dict[str, Any], tmp_path: Path) -> None:
    settings = switches | ({"tokenizer_class": kind} if kind else {})
    for name, normalizer in (("uncased", {}), ("cased", {"lowercase": False, "strip_accents": False})):
        folder = write(
            tmp_path / name,
            {"config.json": BERT, "tokenizer_config.json": settings, "tokenizer.json": bert_json(**normalizer)},
        )
        warnings = check_equal_ids(folder, BERT)
        overridden = kind != "PreTrainedTokenizerFast" and switches.get("do_lower_case", True) and name == "cased"
        assert any("where lowercase is True, overrides" in warning for warning in warnings) == overridden
    if kind != "PreTrainedTokenizerFast":
        assert check_equal_ids(bert_folder(tmp_path / "txt", "vocab.txt", tokenizer_config=settings), BERT) == []


LAST = len(vocabulary())
FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def decoder(**added: int) -> dict[str, Any]:
    """Returns tokenizer_config.json that lists the special tokens and the given ones."""
    special = {str(number): {"content": token, "special": True, **FLAGS} for token, number in vocabulary().items()
               if token in ORDER and token != "[unused0]"}  # fmt: skip
    return {"added_tokens_decoder": special | {str(n): {"content": t, "special": False, **FLAGS, "normalized": True}
                                               for t, n in added.items()}}  # fmt: skip


@pytest.mark.parametrize("source", ["vocab.txt", "tokenizer.json", "general"])
@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"[ENT]": LAST, "bad-": LAST + 1}},
        {"added_tokens": {"[ENT]": LAST}, "special_tokens_map": {"additional_special_tokens": ["[ENT]"]}},
        {"special_tokens_map": {"additional_special_tokens": ["[ENT]"], "mask_token": "[MASK]"}},
        {"special_tokens_map": {"mask_token": {"content": "[MASK]", **FLAGS, "lstrip": True}}},
        {"tokenizer_config": decoder(E1=LAST)},
        {"tokenizer_config": {"extra_special_tokens": ["[ENT]"]}},
        {"tokenizer_config": {"additional_special_tokens": ["[unused0]"]}},
        {"tokenizer_config": {"bos_token": "[ENT]"}},
    ],
)
def test_added_and_special_tokens(source: str, files: dict[str, Any], tmp_path: Path) -> None:
    check_equal_ids(bert_folder(tmp_path, source, **files), BERT)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"[ENT]": LAST + 1}, "tokenizer_config": decoder(E1=LAST)},
         r"added_tokens.json and \S*tokenizer_config.json .* added_tokens_decoder lacks '\[ENT\]'"),
        ({"added_tokens": {"[ENT]": LAST + 3}}, r"vocab.txt and \S*added_tokens.json .* but \d+ comes next"),
        ({"added_tokens": {"[ENT]": 7}}, r"vocab.txt and \S*added_tokens.json .* has id 7, but 8 comes next"),
        ({"added_tokens": {"ab": LAST}}, r"vocab.txt and \S*added_tokens.json .*'ab' has the ids"),
        ({"tokenizer_config": {"mask_token": "[MASK]"}, "special_tokens_map": {"mask_token": "[unused0]"}},
         r"special_tokens_map.json and \S*tokenizer_config.json .*mask_token is '\[unused0\]' and '\[MASK\]'"),
        ({"tokenizer_config": {"tokenizer_class": "AlbertTokenizer"}}, "tokenizer_class 'AlbertTokenizer' is not"),
        ({"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}}, "has no tokenizer.json for its"),
        ({"tokenizer_config": {"auto_map": {}}}, "without auto_map"),
        ({"tokenizer_config": {"strip_accents": "yes"}}, "not a readable tokenizer"),
        ({"tokenizer_config": {"mask_token": "[GONE]"}}, r"'\[GONE\]'|no \[GONE\]"),
    ],
)  # fmt: skip
def test_contradictions_name_both_files(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_tokenizer(bert_folder(tmp_path, "vocab.txt", **files), BERT)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer.type is 'Whitespace', but BertTokenizer has"),
        ("normalizer", None, "normalizer.type is None"),
        ("normalizer", {"type": "Lowercase"}, "normalizer.type is 'Lowercase'"),
        ("model", {"max_input_chars_per_word": 5}, "max_input_chars_per_word is 5, but BertTokenizer has 100"),
        ("post_processor", {"type": "RobertaProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3],
                            "trim_offsets": True, "add_prefix_space": False}, "layout of pairs"),
    ],
)  # fmt: skip
def test_a_tokenizer_json_that_its_class_would_replace(part: str, value: Any, message: str, tmp_path: Path) -> None:
    """It is refused, and read as it is with the general class, as the message says."""
    state = bert_json()
    state[part] = state[part] | value if part == "model" else value
    folder = bert_folder(tmp_path, "tokenizer.json", tokenizer=state)
    with pytest.raises(InputError, match=rf"tokenizer.json and \S*tokenizer_config.json .*{message}"):
        read_tokenizer(folder, BERT)
    write(folder, {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}})
    check_equal_ids(folder, BERT)


@pytest.mark.parametrize("switches", [{}, {"add_prefix_space": True}])
@pytest.mark.parametrize("kind", ["RobertaTokenizer", "RobertaTokenizerFast", None])
def test_roberta(kind: str | None, switches: dict[str, Any], tmp_path: Path) -> None:
    settings = {"tokenizer_config.json": switches | ({"tokenizer_class": kind} if kind else {})}
    vocab, merges = roberta_vocabulary()
    old = {"vocab.json": vocab, "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)}
    for prefix, files in ((None, old), (False, {}), (True, {})):
        new = {} if prefix is None else {"tokenizer.json": json.loads(roberta(prefix).to_str())}
        folder = write(tmp_path / str(prefix), {"config.json": ROBERTA, **settings, **files, **new})
        warnings = check_equal_ids(folder, ROBERTA)
        assert bool(warnings) == (prefix is not None and prefix != switches.get("add_prefix_space", False))


def test_modernbert(tmp_path: Path) -> None:
    """Its special tokens are added after the vocabulary, among ordinary added tokens."""
    vocab, merges = roberta_vocabulary()
    pieces = [piece for piece in vocab if not piece.startswith("<")]
    model = models.BPE({piece: number for number, piece in enumerate(pieces)}, merges)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("E1", normalized=False), AddedToken("  ", normalized=True)])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True)])
    tokenizer.add_tokens(["[unused0]"])
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    config = {"model_type": "modernbert"}
    settings = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
    files = {"config.json": config, "tokenizer.json": json.loads(tokenizer.to_str())}
    folder = write(tmp_path, files | {"tokenizer_config.json": settings | {"tokenizer_class": "BertTokenizer"}})
    assert check_equal_ids(folder, config) == []


def test_words_of_byte_level_tokens(tmp_path: Path) -> None:
    folder = write(tmp_path, {"config.json": ROBERTA, "tokenizer.json": json.loads(roberta().to_str())})
    tokenizer, _, _ = read_tokenizer(folder, ROBERTA)
    pieces = {piece: word_part(tokenizer, tokenizer.token_to_id(piece)) for piece in ("Ġab", "ab", "[CLS]")}
    assert pieces == {"Ġab": ("ab", True), "ab": ("ab", False), "[CLS]": ("[CLS]", True)}
