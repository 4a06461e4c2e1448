"""Tokens and words of a kind: the special tokens, function words, and words of one stem."""

from functools import cache

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIALS))
FIRST_ORDINARY = len(SPECIALS)
"""Ids from here on are ordinary tokens: they may be masked, and drawn as random replacements."""

_LISTED = """
a an the this that these those some any no every each either neither both all such another other
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one oneself who whom whose which what whoever whatever
about above across after against along among around as at before behind below beneath beside besides between
beyond by despite down during except for from in inside into like near of off on onto out outside over past
since through throughout till to toward towards under until up upon via with within without
and but or nor so yet if because although though while whereas unless than whether when where why how
am is are was were be been being have has had having do does did done doing will would shall should can could
may might must ought not n't there here then also only just very too even
"""
FUNCTION_WORDS = frozenset(_LISTED.split())
"""English articles, pronouns, prepositions, conjunctions, auxiliaries and particles: the function words."""

STEM_LENGTH = 4
"""Shorter words have no stem in common with others: "the" and "the" masked together is no pattern."""


@cache
def stem(word: str) -> str:
    """Returns the word's stem by the Snowball stemmer; "" for function words and words that are too short."""
    word = word.lower()
    if len(word) < STEM_LENGTH or not word.isalpha() or word in FUNCTION_WORDS:
        return ""
    import snowballstemmer

    return str(snowballstemmer.stemmer("english").stemWord(word))
