"""Special tokens, function words and word stems."""

import tomllib
from functools import cache
from importlib.resources import files

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIALS))
FIRST_ORDINARY = len(SPECIALS)  # first id of the ordinary tokens, which may be masked and drawn as random replacements

FUNCTION_WORDS = frozenset(
    tomllib.loads((files(__package__) / "function_words.toml").read_text("utf-8"))["words"].split()
)
"""English function words: articles, pronouns, prepositions, conjunctions, auxiliaries and particles."""

STEM_LENGTH = 4  # minimum length of a word with a stem; masking "the" and "the" together is not a meaningful pattern


@cache
def stem(word: str) -> str:
    """Returns the Snowball stem of a word, or "" for function words, short words and words with other characters."""
    word = word.lower()
    if len(word) < STEM_LENGTH or not word.isalpha() or word in FUNCTION_WORDS:
        return ""
    import snowballstemmer

    return str(snowballstemmer.stemmer("english").stemWord(word))
