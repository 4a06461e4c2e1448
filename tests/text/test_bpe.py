import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mapnet_cli.core.errors import DamagedError
from mapnet_cli.text.bpe import encode_lines, load_tokenizer, train_tokenizer, without_long_words
from mapnet_cli.text.words import MASK, UNK

LINES = ["the cat sat on the mat .", "a cat and a rat and a bat", "that hat is flat", "漢 the 字"] * 10


def test_specials_come_first_and_the_vocabulary_size_is_exact() -> None:
    tokenizer = train_tokenizer(LINES, 40)
    assert [tokenizer.id_to_token(number) for number in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.get_vocab_size() == 40
    assert train_tokenizer(LINES, 5000).get_vocab_size() < 5000


def test_decoding_restores_text_and_unknown_runs_become_one_token(tmp_path: Path) -> None:
    train_tokenizer(LINES, 60).save(str(tmp_path / "t.json"))
    tokenizer = load_tokenizer(tmp_path / "t.json")
    ids, unknown, special = encode_lines(tokenizer, ["the cat sat", "the ЖЖЖ cat", "[MASK] cat"])
    assert tokenizer.decode(ids) == "the cat sat"
    assert unknown.count(UNK) == 1
    assert MASK not in special, "text can't inject special tokens"


def test_the_alphabet_drops_rare_characters_in_a_fixed_order() -> None:
    lines = ["common words here " * 20, "".join(map(chr, range(0x4E00, 0x4E00 + 500)))]
    vocabulary = train_tokenizer(lines, 400).get_vocab()
    kept = sorted(ord(token) for token in vocabulary if len(token) == 1 and ord(token) >= 0x4E00)
    assert kept == list(range(0x4E00, 0x4E00 + len(kept)))
    assert 0 < len(kept) < 64


@pytest.mark.parametrize("word", ["a" * 100_000, "ab" * 50_000, "=" * 101, "acgt" * 26])
def test_long_words_stay_out_of_training(word: str) -> None:
    """They would take minutes and much of the vocabulary; what is left out is returned."""
    lines = [f"{LINES[0]} {word}", word, f"{word} {LINES[1]}", *LINES]
    kept, left_out = without_long_words(lines, 100)
    assert left_out == [word] * 3
    assert [line.split() for line in kept] == [LINES[0].split(), [], LINES[1].split(), *map(str.split, LINES)]
    start = time.process_time()
    vocabulary = train_tokenizer(kept, 60).get_vocab()
    assert time.process_time() - start < 2
    assert vocabulary == train_tokenizer([LINES[0], LINES[1], *LINES], 60).get_vocab()
    assert without_long_words(lines, len(word)) == (lines, [])


def test_training_is_deterministic_across_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from mapnet_cli.text.bpe import train_tokenizer; from tests.text.test_bpe import LINES;"
        "train_tokenizer([*LINES, ''.join(map(chr, range(0x4e00, 0x5000)))], 300).save(sys.argv[1])"
    )
    root = Path(__file__).parents[2]
    for seed in ("0", "1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(root),
            "RAYON_NUM_THREADS": str(int(seed) + 1),
        }
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True, cwd=tmp_path, env=environment)
    assert len({(tmp_path / seed).read_bytes() for seed in ("0", "1", "2")}) == 1


def test_a_corrupt_file_raises_damaged_error(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(DamagedError, match="prepare-corpus"):
        load_tokenizer(path)
    train_tokenizer(LINES, 60).save(str(path))
    path.write_text(path.read_text()[:-100])
    with pytest.raises(DamagedError):
        load_tokenizer(path)
    path.write_text('{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}')
    with pytest.raises(DamagedError, match="ids 0 to 4"):
        load_tokenizer(path)
