"""The special tokens and their fixed ids: the first rows of every vocabulary."""

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIALS))
FIRST_ORDINARY = len(SPECIALS)
"""Ids from here on are ordinary tokens: they may be masked, and drawn as random replacements."""
