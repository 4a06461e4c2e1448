"""The subword vocabulary: byte-pair encoding over Moses words, with the `tokenizers` library.

The same lines give the same vocabulary in every run: Metaspace is repeatable where a word suffix
or prefix is not, and the alphabet is chosen here, because the library breaks ties at
`limit_alphabet` by the order of a randomly seeded hash map. Start workers with forkserver or
spawn: a process that has used `tokenizers` can hang after a fork.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mapnet_cli.errors import DamagedError
from mapnet_cli.vocabulary import SPECIALS, UNK

SPACE = "▁"
MIN_FREQUENCY = 2
"""A merge must have been seen so often."""
LONGEST_TOKEN = 32
"""Characters; longer ones are rulers (=====) and gene sequences."""


def train(lines: Sequence[str], vocab_size: int) -> Tokenizer:
    """Returns a tokenizer of `vocab_size` entries, specials included; fewer if the lines don't yield so many.

    `lines` hold words separated by spaces. They are read twice and all words counted in memory
    (600 to 700 bytes a distinct word), so pass a sample of a large corpus.
    """
    alphabet = _alphabet(lines, vocab_size)
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[UNK], fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=LONGEST_TOKEN,
    )
    tokenizer.train_from_iterator(iter(lines), trainer, length=len(lines))
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Returns the tokenizer; raises DamagedError if the file is missing, broken or another's."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DamagedError(f"{path} is not a readable tokenizer ({error}): run prepare-corpus again") from None
    if [tokenizer.token_to_id(special) for special in SPECIALS] != list(range(len(SPECIALS))):
        raise DamagedError(f"{path} is not mapnet's tokenizer: ids 0 to 4 are not {' '.join(SPECIALS)}")
    tokenizer.encode_special_tokens = True  # "[MASK]" in a text is text
    return tokenizer


def encode(tokenizer: Tokenizer, lines: Sequence[str]) -> Iterator[list[int]]:
    """Yields each line's token ids, without specials except [UNK]."""
    for encoding in tokenizer.encode_batch_fast(list(lines), add_special_tokens=False):
        yield encoding.ids


def word_part(tokenizer: Tokenizer, token: int) -> tuple[str, bool]:
    """Returns a token's text without its mark, and whether a word begins with it.

    Metaspace marks the first piece of a word, WordPiece (an imported tokenizer) all the others.
    """
    piece = str(tokenizer.id_to_token(token))
    if isinstance(tokenizer.model, models.WordPiece):
        return piece.removeprefix("##"), not piece.startswith("##")
    return piece.removeprefix(SPACE), piece.startswith((SPACE, "["))


def _alphabet(lines: Sequence[str], vocab_size: int) -> list[str]:
    """Returns the most frequent characters, at most an eighth of the vocabulary; the rest become [UNK]."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    counts[SPACE] += counts.pop(" ", 0) + len(lines)
    room = max(64, min(1000, vocab_size // 8))
    return sorted(counts, key=lambda char: (-counts[char], char))[:room]
