"""Special tokens, function words and word stems."""

from functools import cache

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIALS))
FIRST_ORDINARY = len(SPECIALS)  # first id of the ordinary tokens, which may be masked and drawn as random replacements

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
