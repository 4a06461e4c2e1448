"""Tokenised examples: fairseq's input layout, truncation, and the round trip to disk."""

from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.core.errors import DamagedError
from mapnet_cli.finetune_glue import tokenised
from mapnet_cli.finetune_glue.examples import Examples
from mapnet_cli.text.bpe import encode_lines, load_tokenizer, train_tokenizer
from mapnet_cli.text.words import CLS, PAD, SEP


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    train_tokenizer(["a b c d e f , . it rained"] * 5, 300).save(str(path))
    return path


def ids(tokenizer: Path, text: str) -> list[int]:
    return next(iter(encode_lines(load_tokenizer(tokenizer), [text])))


def test_layout_of_one_and_two_texts(tokenizer: Path) -> None:
    one, cut = tokenised.tokenise(Examples([("It rained.",)], [1.0]), tokenizer, "after-moses", 64)
    assert one[0].tolist() == [CLS, *ids(tokenizer, "it rained ."), SEP]
    assert cut == 0
    two, _ = tokenised.tokenise(Examples([("A b", "C")], [0.0]), tokenizer, "after-moses", 64)
    assert two[0].tolist() == [CLS, *ids(tokenizer, "a b"), SEP, SEP, *ids(tokenizer, "c"), SEP]


def test_the_longer_text_is_truncated(tokenizer: Path) -> None:
    data, cut = tokenised.tokenise(Examples([("a b c d e f", "a b")], [0.0]), tokenizer, "never", 10)
    assert data[0].tolist() == [CLS, *ids(tokenizer, "a b c d"), SEP, SEP, *ids(tokenizer, "a b"), SEP]
    assert (len(data[0]), cut) == (10, 1)


def test_disk_round_trip_and_batches(tokenizer: Path, tmp_path: Path) -> None:
    data, _ = tokenised.tokenise(Examples([("a",), ("b c d",)], [0.0, 1.0]), tokenizer, "never", 64)
    files, again = (tokenised.save(tmp_path / name, data, ["a", "b\u00e9"]) for name in ("train", "again"))
    loaded = tokenised.load(tmp_path / "train")
    assert loaded.labels.tolist() == [0.0, 1.0]
    batch_BL = loaded.batch(np.array([1, 0]))
    assert batch_BL[0].tolist() == data[1].tolist()
    assert batch_BL[1].tolist() == data[0].tolist() + [PAD] * (len(data[1]) - len(data[0]))
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in files]
    assert tokenised.load_ids(tmp_path / "train") == ["a", "b\u00e9"]
    files[-1].write_bytes(files[-1].read_bytes()[:-1])
    tokenised.load.cache_clear()
    with pytest.raises(DamagedError, match=r"train can't be read .*finetune-glue --force"):
        tokenised.load(tmp_path / "train")
