"""Loading of a Hugging Face BERT tokenizer, renumbered so that mapnet's special tokens come first."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mapnet_cli.core import InputError
from mapnet_cli.text import CLS, SEP, SPECIALS, UNK

_MODELS = ("WordPiece", "BPE", "WordLevel")


def read_tokenizer(folder: Path) -> tuple[Tokenizer, list[int]]:
    """Returns the renumbered tokenizer, and the old id of each new id.

    Raises InputError if the folder has no tokenizer or its type isn't supported.
    """
    file = folder / "tokenizer.json"
    if file.exists():
        state = read_object(file)
    elif (folder / "vocab.txt").exists():
        file = folder / "vocab.txt"
        state = json.loads(_from_vocabulary(folder).to_str())
    else:
        raise InputError(f"{folder} has neither tokenizer.json nor vocab.txt: save the tokenizer there as well")
    try:
        Tokenizer.from_str(json.dumps(state))  # validates the structure
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{file} is not a readable tokenizer: {error}") from None
    old_ids = _renumber(state, file)
    state["truncation"] = state["padding"] = None  # mapnet truncates and pads itself
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if tokenizer.get_vocab_size() != len(old_ids):
        raise InputError(f"{file}: {len(old_ids):,} tokens have ids, but {tokenizer.get_vocab_size():,} were loaded")
    return tokenizer, old_ids


def read_object(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; raises InputError if there is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: pass a folder written by save_pretrained") from None
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} is not a JSON object")
    return value


def _from_vocabulary(folder: Path) -> Tokenizer:
    """Returns the standard BERT tokenizer for vocab.txt, with the options from tokenizer_config.json."""
    settings = read_object(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    try:
        tokens = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder / 'vocab.txt'} is not UTF-8: {error}") from None
    vocab = {token: number for number, token in enumerate(tokens)}
    _check(list(vocab.values()), vocab, folder / "vocab.txt")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=SPECIALS[UNK], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        (SPECIALS[SEP], vocab[SPECIALS[SEP]]), (SPECIALS[CLS], vocab[SPECIALS[CLS]])
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def _renumber(state: dict[str, Any], file: Path) -> list[int]:
    """Renumbers the tokens of a tokenizer.json in place: special tokens first, the rest in their old order.

    Returns the old ids in the new order.
    """
    model = state.get("model") or {}
    vocab, added = model.get("vocab"), state.get("added_tokens") or []
    if model.get("type", "WordPiece") not in _MODELS or not isinstance(vocab, dict):
        raise InputError(
            f"{file}: a vocabulary of type {model.get('type')!r} is not supported, only {' or '.join(_MODELS)}"
        )
    if model.get("unk_token") not in (None, SPECIALS[UNK]):
        raise InputError(f"{file}: unk_token {model['unk_token']!r} is not supported, only {SPECIALS[UNK]!r}")
    every = vocab | {token["content"]: token["id"] for token in added}
    old_ids = sorted(every.values())
    _check(old_ids, every, file)
    first = [every[special] for special in SPECIALS]
    order = first + [number for number in old_ids if number not in set(first)]
    new = {old: number for number, old in enumerate(order)}
    # special tokens from added_tokens move into the vocabulary: their new ids are below its size
    model["vocab"] = {token: new[old] for token, old in every.items() if token in vocab or token in SPECIALS}
    model["vocab"] = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    for token in added:
        token["id"] = new[token["id"]]
    state["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
    _renumber_processor(state.get("post_processor"), new, file)
    return order


def _check(ids: list[int], vocab: dict[str, int], file: Path) -> None:
    """Raises InputError unless the ids are 0 to N - 1 without gaps and all special tokens exist."""
    if absent := [special for special in SPECIALS if special not in vocab]:
        raise InputError(f"{file} has no {' '.join(absent)}: only a vocabulary with {' '.join(SPECIALS)} is supported")
    if ids != list(range(len(ids))):
        raise InputError(f"{file}: the ids of the {len(ids):,} tokens are not exactly 0 to {len(ids) - 1:,}")


def _renumber_processor(processor: dict[str, Any] | None, new: dict[int, int], file: Path) -> None:
    kind = processor["type"] if processor else None
    if processor is None or kind == "ByteLevel":
        return
    if kind == "Sequence":
        for part in processor["processors"]:
            _renumber_processor(part, new, file)
    elif kind == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            special["ids"] = [new[old] for old in special["ids"]]
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for name in ("sep", "cls"):
            token, old = processor[name]
            processor[name] = [token, new[old]]
    else:
        raise InputError(f"{file}: a post_processor of type {kind!r} is not supported, only TemplateProcessing")
