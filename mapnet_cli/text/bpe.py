"""Subword vocabulary: byte-pair encoding of Moses words, with the `tokenizers` library.

Training is deterministic. Metaspace is used because word suffixes and prefixes aren't reproducible,
and the alphabet is chosen here because the library breaks ties at `limit_alphabet` in the order of a
randomly seeded hash map. Start workers with forkserver or spawn: a process that has used
`tokenizers` can hang after a fork.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mapnet_cli.core import Artifacts, CorpusManifest, DamagedError, Imported
from mapnet_cli.text.words import SPECIALS, UNK

SPACE = "▁"
MIN_FREQUENCY = 2  # minimum frequency of a merge
LONGEST_TOKEN = 32  # maximum characters per token; longer ones are rulers (=====) and gene sequences
TOKENS_PER_WORD = 1.35  # estimate for English text, used in forecasts
LINES = 1_000  # lines per batch


def without_long_words(lines: Sequence[str], longest: int) -> tuple[list[str], list[str]]:
    """Returns the lines without words of more than `longest` characters, and these words."""
    pattern = re.compile(rf"(?<![^ ])[^ ]{{{longest + 1},}}")
    kept, left_out = list(lines), []
    for number, line in enumerate(lines):
        if len(line) > longest and (found := pattern.findall(line)):
            left_out += found
            kept[number] = pattern.sub("", line)
    return kept, left_out


def train_tokenizer(lines: Sequence[str], vocab_size: int) -> Tokenizer:
    """Returns a tokenizer with `vocab_size` entries, including specials, or fewer if the lines don't yield as many.

    `lines` are words separated by spaces. They are read twice and all words are counted in memory (600 to 700 bytes per
    distinct word), so pass a sample of a large corpus. The time grows with the square of the length of a word.
    """
    alphabet = _alphabet(lines, vocab_size)
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[UNK], fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=MIN_FREQUENCY, max_token_length=LONGEST_TOKEN,
        special_tokens=list(SPECIALS), initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(map(" ".join, _batches(lines)), trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer; raises DamagedError if the file is missing, corrupt or not a mapnet tokenizer."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DamagedError(f"{path} is not a readable tokenizer ({error}): run prepare-corpus again") from None
    if [tokenizer.token_to_id(special) for special in SPECIALS] != list(range(len(SPECIALS))):
        raise DamagedError(f"{path} is not a mapnet tokenizer: ids 0 to 4 are not {' '.join(SPECIALS)}")
    tokenizer.encode_special_tokens = True  # "[MASK]" in the input is ordinary text
    return tokenizer


def verified_tokenizer(artifacts: Artifacts, key: str) -> Path:
    """Returns the tokenizer of a corpus manifest or an import. Raises DamagedError if the file has changed."""
    kind: type[Imported] | type[CorpusManifest] = Imported if key.startswith("import/") else CorpusManifest
    name = artifacts.read(key, kind).tokenizer
    artifacts.verify(key, only=name)
    return artifacts.path(name)


def encode_lines(tokenizer: Tokenizer, lines: Sequence[str]) -> Iterator[list[int]]:
    """Yields the token ids of each line, without specials except [UNK]."""
    for encoding in tokenizer.encode_batch_fast(list(lines), add_special_tokens=False):
        yield encoding.ids


def word_part(tokenizer: Tokenizer, token: int) -> tuple[str, bool]:
    """Returns a token's text without its word-boundary mark, and whether it begins a word.

    Metaspace marks the first token of a word, and so does ByteLevel, with another letter; WordPiece marks all others.
    """
    piece = str(tokenizer.id_to_token(token))
    if isinstance(tokenizer.model, models.WordPiece):
        return piece.removeprefix("##"), not piece.startswith("##")
    mark = "Ġ" if isinstance(tokenizer.decoder, decoders.ByteLevel) else SPACE
    return piece.removeprefix(mark), piece.startswith((mark, "["))


def _batches(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    return (lines[start : start + LINES] for start in range(0, len(lines), LINES))


def _alphabet(lines: Sequence[str], vocab_size: int) -> list[str]:
    """Returns the most frequent characters, an eighth of the vocabulary (64 to 1,000); all others become [UNK]."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for batch in _batches(lines):
        text = SPACE.join(["", *batch]).replace(" ", SPACE)
        counts += np.bincount(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"), minlength=len(counts))
    room = max(64, min(1000, vocab_size // 8))
    order = np.argsort(-counts, kind="stable")[:room]  # stable: ties are in code-point order
    return [chr(char) for char in order if counts[char]]
