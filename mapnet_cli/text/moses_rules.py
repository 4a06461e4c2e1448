"""The text preparation of `normalise` as regular expressions, so that a tokenizer.json can do it by itself.

The rules follow sacremoses'. What they keep of a match becomes a look-around, since replacements of `tokenizers` can't
refer to groups. docs/huggingface.md lists what differs.
"""

import re
from collections.abc import Iterable, Iterator

from tokenizers import Regex, normalizers

from mapnet_cli.text.normalise import INVISIBLE, moses_substitutions

Rule = tuple[str, str]  # A pattern and its literal replacement

_RUNS = (",", ".", "...", "..", "....", ",,", ",.", ".,")
"""Commas and full stops that move before a quotation mark; other runs stay."""
_ENDS = (r"\A\s+|\s+\z", "")
_FINAL_SIGMA = (r"(?<=\p{L})Σ(?!\p{L})", "ς")  # what Python's lower-casing does, but not `tokenizers`'


def moses_normalizer(preparation: str) -> normalizers.Normalizer:
    """Returns a normalizer of text to the words of `prepare_line` with single spaces; for `Corpus.preparation`."""
    lowercase, _, characters = preparation.partition(" ")
    repair = not characters
    lower = [*_compiled([_FINAL_SIGMA]), normalizers.Lowercase()]
    before, after = (lower if lowercase == f"{when}-moses" else [] for when in ("before", "after"))
    first = _compiled([(INVISIBLE.pattern, "")] if repair else [])
    punctuation, words = _compiled(_punctuation(repair)), _compiled(_tokenisation())
    return normalizers.Sequence([*first, normalizers.NFC(), *punctuation, *before, *words, *after])


def _compiled(rules: Iterable[Rule]) -> Iterator[normalizers.Normalizer]:
    return (normalizers.Replace(Regex(pattern), content) for pattern, content in rules)


def _punctuation(repair: bool) -> Iterator[Rule]:
    """Yields the rules of `normalise_text`."""
    for pattern, replacement in moses_substitutions(repair):
        if pattern == '"([,.]+)':
            yield from ((f'"{re.escape(run)}(?![,.])', f'{run}"') for run in _RUNS)
            continue
        parts = re.fullmatch(r"(?:\((.+?)\))?(.*?)(?:(?<!\\)\((.+)\))?", pattern)
        assert parts
        first, replaced, last = (part or "" for part in parts.groups())
        literal = re.sub(r"\\g<\d>", "", replacement)
        # \K keeps what was matched so far; Python's next match can't begin with the last group of this one
        kept = (rf"(?<!{first}{replaced})" if last else "") + rf"{first}\K" if first else ""
        yield f"{kept}{replaced}(?={last})" if last else f"{kept}{replaced}", literal
    yield r"[\p{C}\s]+", " "
    yield _ENDS


def _tokenisation() -> Iterator[Rule]:
    """Yields the rules of Moses' English tokeniser, in its order."""
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang="en")
    word, letter, number, lower = map(_ranges, (moses.IsAlnum, moses.IsAlpha, moses.IsN, moses.IsLower))
    yield rf"(?=[^{word}\s.'`,-])|(?<=[^{word}\s.'`,-])", " "
    yield r"(?<!\.)(?=\.\.)|(?<=\.\.)(?!\.)", " "
    yield rf"(?<=[^{number}]),|,(?![{number}])", " , "
    yield rf"(?<=[^{letter}])'(?=[^{letter}])|(?<=[{letter}])'(?=[^{letter}])", " ' "
    yield rf"(?<=[^{letter}{number}])'(?=[{letter}])", " ' "
    # in rock'n'roll, the first match takes the n that the second would begin with
    yield rf"(?<![{letter}]'[{letter}])(?<=[{letter}])'(?=[{letter}])|(?<=[{number}])'(?=s)", " '"
    prefixes = "|".join(re.escape(word) for word in moses.NONBREAKING_PREFIXES if " " not in word)
    attached = (
        rf"(?:{prefixes})\.(?:\s|\z)",
        rf"(?:{'|'.join(moses.NUMERIC_ONLY_PREFIXES)})\.\s+[0-9]",
        rf"(?=\S*[{letter}])[^\s.]*\.\S",  # another full stop, as in U.S.
    )
    yield rf"(?<!\S)(?!{'|'.join(attached)})\S*[^\s.]\K\.(?=\s|\z)(?!\s+[{lower}])", " ."
    yield r"\.'\s*\z", " . '"
    yield r"\s+", " "
    yield _ENDS


def _ranges(characters: str) -> str:
    """Returns the characters as the inside of a regular expression's class."""
    codes = set(map(ord, characters))
    firsts, lasts = ({code for code in codes if code + step not in codes} for step in (-1, 1))
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(sorted(firsts), sorted(lasts), strict=True))
