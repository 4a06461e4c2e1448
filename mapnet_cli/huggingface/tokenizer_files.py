"""The tokenizer of a Hugging Face folder, as `AutoTokenizer` loads it, renumbered so that mapnet's specials come first.

Several files describe it. A class of its own, such as BertTokenizer, is built from the vocabulary and the settings of
tokenizer_config.json; only the general class takes tokenizer.json as it is. Both become one tokenizer.json here.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mapnet_cli.config.hugging_face import present, read_object
from mapnet_cli.core import InputError, readable
from mapnet_cli.text import SPECIALS

Json = dict[str, Any]
_GENERAL = "TokenizersBackend"
_CLASSES = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer", "modernbert": _GENERAL}
"""Class by model_type, if no file names one."""
_VOCABULARY = {"BertTokenizer": ["vocab.txt"], "RobertaTokenizer": ["vocab.json", "merges.txt"], _GENERAL: []}
"""Files that replace tokenizer.json."""
_ROLES = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
"""Roles of mapnet's special tokens, in their order, with RoBERTa's names."""
_SWITCHES = ("lowercase", "strip_accents", "handle_chinese_chars", "add_prefix_space")
"""Settings in tokenizer.json that tokenizer_config.json overrides."""
_MODELS = ("WordPiece", "BPE", "WordLevel")


class _Files:
    """The files that describe the tokenizer, {} for those that don't exist, and what they agree on."""

    def __init__(self, folder: Path, config: Json) -> None:
        names = ("tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens")
        self.paths = [folder / f"{name}.json" for name in names]
        self.state, self.settings, specials, self.added = (read_object(p) if present(p) else {} for p in self.paths)
        declared = str(self.settings.get("tokenizer_class") or config.get("tokenizer_class") or "")
        general = config["model_type"] == "modernbert" or declared.startswith("PreTrained")  # as in transformers
        self.kind = _GENERAL if general else declared.removesuffix("Fast") or _CLASSES[config["model_type"]]
        if self.kind not in _VOCABULARY or "auto_map" in self.settings:
            supported = f"{', '.join(_VOCABULARY)} and PreTrainedTokenizerFast, without auto_map"
            raise InputError(f"{self.paths[1]}: tokenizer_class {declared!r} is not supported, only {supported}")
        vocabulary = [folder / name for name in _VOCABULARY[self.kind]]
        if not self.state and not (vocabulary and all(map(present, vocabulary))):
            wanted = " or ".join(["tokenizer.json", *filter(None, [" with ".join(_VOCABULARY[self.kind])])])
            raise InputError(f"{folder} has no {wanted} for its {self.kind}: save the tokenizer there as well")
        self.source = self.paths[0] if self.state else vocabulary[0]
        for key in specials.keys() & self.settings.keys():
            one, other = _content(specials[key]), _content(self.settings[key])
            if key.endswith("_token") and one != other:
                raise self.contradiction(2, 1, f"{key} is {one!r} and {other!r}")
        self.lists_added = "added_tokens_decoder" in self.settings  # then transformers ignores the older two files
        named = self.settings | ({} if self.lists_added else specials)
        self.roles = {
            role: _content(named.get(f"{role}_token"))
            or (roberta if self.kind == "RobertaTokenizer" else f"[{role.upper()}]")
            for role, roberta in _ROLES.items()
        }
        extra = named.get("extra_special_tokens") or named.get("additional_special_tokens") or []
        self.special = [
            *(value for key, value in named.items() if key.endswith("_token") and isinstance(value, str | dict)),
            *self.roles.values(), *(extra.values() if isinstance(extra, dict) else extra),
        ]  # fmt: skip

    def contradiction(self, one: int, other: int, what: str) -> InputError:
        first, second = (self.paths[n] if n else self.source for n in (one, other))
        return InputError(f"{first} and {second} contradict each other: {what}. Correct or delete one of them")


def read_tokenizer(folder: Path, config: Json) -> tuple[Tokenizer, list[int], list[str]]:
    """Returns the renumbered tokenizer, the old id of each new id, and warnings. Raises InputError."""
    files, warnings = _Files(folder, config), list[str]()
    state = files.state
    with readable(str(files.source), "is not a readable tokenizer"):
        if state:
            Tokenizer.from_str(json.dumps(state))  # validates the structure
            if (model := state["model"].get("type", "WordPiece")) not in _MODELS:
                supported = " or ".join(_MODELS)
                raise InputError(f"{files.source}: a vocabulary of type {model!r} is not supported, only {supported}")
            state = state | {"truncation": None, "padding": None}  # mapnet truncates and pads itself
        if files.kind != _GENERAL:
            state = json.loads(_built(files).to_str())
        state["added_tokens"] = _added_tokens(files, state["model"]["vocab"])
        ids = state["model"]["vocab"] | {token["content"]: token["id"] for token in state["added_tokens"]}
        if absent := [special for special in files.roles.values() if special not in ids]:
            raise InputError(f"{files.source} has no {' '.join(absent)}: mapnet needs {' '.join(files.roles.values())}")
        if files.kind != _GENERAL:
            for special in state["post_processor"]["special_tokens"].values():
                special["ids"] = [ids[special["id"]]]
            warnings = _compare(files, state) if files.state else []
        old_ids = _renumber(state, ids, files)
        tokenizer = Tokenizer.from_str(json.dumps(state))
    if tokenizer.get_vocab_size() != len(old_ids):
        raise InputError(f"{files.source}: {len(old_ids):,} tokens have ids, but {tokenizer.get_vocab_size():,} loaded")
    return tokenizer, old_ids, warnings


def _built(files: _Files) -> Tokenizer:
    """Returns the tokenizer of the class in tokenizer_config.json, with its settings and the defaults of the class."""
    model, get, roles = files.state.get("model") or {}, files.settings.get, files.roles
    paths = [str(files.source.with_name(name)) for name in _VOCABULARY[files.kind]]
    if files.kind == "RobertaTokenizer":
        vocab, merges = (model["vocab"], model.get("merges", [])) if model else models.BPE.read_file(*paths)
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
        tokenizer = Tokenizer(models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix=""))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=get("add_prefix_space", False))
        tokenizer.decoder = decoders.ByteLevel()
        layout = "{cls} $A:0 {sep}", "{cls} $A:0 {sep} {sep} $B:0 {sep}:0"
    else:
        vocab = model["vocab"] if model else models.WordPiece.read_file(*paths)
        tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=roles["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=get("tokenize_chinese_chars", True),
            strip_accents=get("strip_accents"),
            lowercase=get("do_lower_case", True),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        layout = "{cls} $A:0 {sep}", "{cls} $A:0 {sep} $B:1 {sep}:1"
    single, pair = (template.format(**roles) for template in layout)
    unset = [(roles["cls"], 0), (roles["sep"], 0)]  # ids follow when all tokens are known
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=unset)
    return tokenizer


def _compare(files: _Files, built: Json) -> list[str]:
    """Compares tokenizer.json with the tokenizer that `transformers` builds instead.

    Returns a warning per setting that tokenizer_config.json overrides; raises InputError for any other difference.
    """
    warnings, unused = [], {"type", "vocab", "merges", "trim_offsets"}
    if files.kind == "RobertaTokenizer":
        unused.add("unk_token")  # bytes are never unknown
    for part in ("normalizer", "pre_tokenizer", "model"):
        given = files.state.get(part) or {}
        for key in ("type", *sorted(given.keys() - unused)):
            one, other = given.get(key), (built[part] or {}).get(key)
            if (one or None) == (other or None) or (part == "model" and key == "type" and one is None):
                continue
            if key not in _SWITCHES:
                what = f"{part}.{key} is {one!r}, but {files.kind} has {other!r}"
                raise files.contradiction(0, 1, f"{what}; tokenizer_class PreTrainedTokenizerFast would keep the first")
            where = f"{files.paths[1].name}, where {key} is {other}, overrides {files.paths[0]}, where it is {one}"
            warnings.append(f"{where}, as in transformers")
    theirs, ours = (
        Tokenizer.from_str(json.dumps(state | {"truncation": None, "padding": None})).encode("", "")
        for state in (files.state, built)
    )
    if files.state.get("post_processor") and (theirs.ids, theirs.type_ids) != (ours.ids, ours.type_ids):
        raise files.contradiction(0, 1, f"the layout of pairs is not that of {files.kind}")
    return warnings


def _added_tokens(files: _Files, vocab: dict[str, int]) -> list[Json]:
    """Returns the added tokens of all files, with their ids. Raises InputError if two files disagree."""
    own = {token["content"]: token for token in files.state.get("added_tokens") or []}
    listed = {
        token["content"]: token | {"id": int(n)} for n, token in files.settings.get("added_tokens_decoder", {}).items()
    }
    special = set(map(_content, files.special))
    old = {t: {"id": number, "content": t, "special": t in special} for t, number in files.added.items()}
    ids: dict[str, tuple[int, int]] = {token: (0, number) for token, number in vocab.items()}
    for place, tokens in ((0, own), (1, listed), (3, old)):
        for content, token in tokens.items():
            other, number = ids.setdefault(content, (place, token["id"]))
            if number != token["id"]:
                raise files.contradiction(other, place, f"{content!r} has the ids {number} and {token['id']}")
    if files.lists_added:
        for place, tokens, kept in ((0, own, own if files.kind == _GENERAL else {}), (3, old, own)):
            if dropped := sorted(tokens.keys() - kept.keys() - listed.keys() - set(files.roles.values())):
                raise files.contradiction(place, 1, f"added_tokens_decoder lacks {dropped[0]!r}")
    merged = old | own | listed
    for value in files.special:
        content = _content(value)
        flags = value if isinstance(value, dict) else {}
        if content not in merged and (content in ids or content not in files.roles.values()):
            number = ids.setdefault(content, (1, 1 + max(number for _, number in ids.values())))[1]
            merged[content] = flags | {"id": number, "content": content, "special": True}
    for expected, (content, (place, number)) in enumerate(sorted(ids.items(), key=lambda item: item[1][::-1])):
        if number != expected:
            what = f"{content!r} has id {number}, but {expected} comes next"
            raise files.contradiction(0, place, what) if place else InputError(f"{files.source}: {what}")
    defaults = {"single_word": False, "lstrip": False, "rstrip": False}
    keys = (*defaults, "id", "content", "normalized", "special")
    return [
        {k: v for k, v in (defaults | {"normalized": not token.get("special")} | token).items() if k in keys}
        for token in merged.values()
    ]


def _content(token: Json | str | None) -> str:
    return str(token["content"]) if isinstance(token, dict) else token or ""


def _renumber(state: Json, ids: dict[str, int], files: _Files) -> list[int]:
    """Gives the special tokens mapnet's names and ids, in place; the rest keep their order. Returns the old ids.

    Only the five are special in mapnet, where special tokens in a text are ordinary characters.
    """
    model, added = state["model"], state["added_tokens"]
    if model.get("unk_token") not in (None, files.roles["unk"]):
        raise InputError(f"{files.source}: unk_token {model['unk_token']!r} is not {files.roles['unk']!r}")
    first = [ids[special] for special in files.roles.values()]
    order = first + [number for number in range(len(ids)) if number not in set(first)]
    new = {old: number for number, old in enumerate(order)}
    names = dict(zip(files.roles.values(), SPECIALS, strict=True))
    # special tokens from added_tokens move into the vocabulary: their new ids are below its size
    kept = sorted((new[old], token) for token, old in ids.items() if token in model["vocab"] or token in names)
    model["vocab"] = {names.get(token, token): number for number, token in kept}
    if model.get("unk_token"):
        model["unk_token"] = names[model["unk_token"]]
    for token in added:
        token |= {"id": new[token["id"]], "content": names.get(token["content"], token["content"])}
        token["special"] = token["content"] in SPECIALS
    state["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
    _renumber_processor(state.get("post_processor"), names, new, files.source)
    return order


def _renumber_processor(processor: Json | None, names: dict[str, str], new: dict[int, int], file: Path) -> None:
    kind = processor["type"] if processor else None
    if processor is None or kind == "ByteLevel":
        return
    if kind == "Sequence":
        for part in processor["processors"]:
            _renumber_processor(part, names, new, file)
    elif kind == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            special["ids"] = [new[old] for old in special["ids"]]
            special["tokens"] = [names.get(token, token) for token in special["tokens"]]
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for name in ("sep", "cls"):
            token, old = processor[name]
            processor[name] = [names.get(token, token), new[old]]
    else:
        raise InputError(f"{file}: a post_processor of type {kind!r} is not supported, only TemplateProcessing")
