import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, trainers

from mapnet_cli.prepare_corpus import encode
from mapnet_cli.prepare_corpus.encode import Encoder, Packer
from mapnet_cli.text.bpe import encode_lines, train_tokenizer
from mapnet_cli.text.words import CLS, SEP
from tests.growth import assert_linear
from tests.text import plain
from tests.text.texts import PIECES, lines

sentences = st.lists(st.integers(5, 99), min_size=1, max_size=20)
TOKENIZER = train_tokenizer([" ".join(PIECES)] * 2, 300)
corpora = st.lists(st.lists(sentences, min_size=1, max_size=6), max_size=5)


def pack(documents: list[list[list[int]]], blocks: str, length: int, cross: bool) -> list[list[int]]:
    out: list[list[int]] = []
    packer = Packer(blocks, length, cross, out.append)
    for document in documents:
        for sentence in document:
            packer.add(sentence)
        packer.end_document()
    packer.flush()
    return out


@settings(deadline=None)
@given(corpora, st.sampled_from(["complete", "full", "sentence"]), st.integers(8, 24), st.booleans())
def test_blocks_preserve_the_input(documents: list[list[list[int]]], blocks: str, length: int, cross: bool) -> None:
    packed = pack(documents, blocks, length, cross)
    for block in packed:
        assert (block[0], block[-1]) == (CLS, SEP)
        assert 3 <= len(block) <= length
    flat = [token for document in documents for sentence in document for token in sentence]
    assert [token for block in packed for token in block[1:-1]] == flat


@settings(deadline=None)
@given(corpora, st.sampled_from(["complete", "full", "sentence"]), st.integers(8, 24))
def test_blocks_end_at_document_ends(documents: list[list[list[int]]], blocks: str, length: int) -> None:
    separate = [block for document in documents for block in pack([document], blocks, length, False)]
    assert pack(documents, blocks, length, False) == separate


@settings(deadline=None)
@given(corpora, st.integers(8, 24), st.booleans())
def test_only_long_sentences_are_split(documents: list[list[list[int]]], length: int, cross: bool) -> None:
    packed = pack(documents, "complete", length, cross)
    ends, position = {0}, 0
    for document in documents:
        for sentence in document:
            ends |= set(range(position, position + len(sentence))) if len(sentence) > length - 2 else set()
            position += len(sentence)
            ends.add(position)
    position = 0
    for block in packed:
        position += len(block) - 2
        assert position in ends


@settings(deadline=None)
@given(corpora, st.integers(8, 24), st.booleans())
def test_full_blocks_are_full(documents: list[list[list[int]]], length: int, cross: bool) -> None:
    """Except the last block of a document, or of the corpus if blocks may cross documents."""
    runs = [documents] if cross else [[document] for document in documents]
    for run in runs:
        packed = pack(run, "full", length, cross)
        assert all(len(block) == length for block in packed[:-1])


def test_examples() -> None:
    one, two, long = [11] * 3, [12] * 3, [13] * 14
    assert pack([[one, two, one], [two]], "complete", 8, False) == [
        [CLS, *one, *two, SEP],
        [CLS, *one, SEP],
        [CLS, *two, SEP],
    ]
    assert pack([[one], [two]], "complete", 8, True) == [[CLS, *one, *two, SEP]]
    assert pack([[one, long, two]], "complete", 8, False) == [
        [CLS, *one, SEP],
        [CLS, *[13] * 6, SEP],
        [CLS, *[13] * 6, SEP],
        [CLS, 13, 13, *two, SEP],
    ]
    assert pack([[one, two, one]], "full", 8, False) == [[CLS, *one, *two, SEP], [CLS, *one, SEP]]
    assert pack([[one, long]], "full", 8, False) == [
        [CLS, *one, *[13] * 3, SEP],
        [CLS, *[13] * 6, SEP],
        [CLS, *[13] * 5, SEP],
    ]
    assert pack([[one, two]], "sentence", 8, True) == [[CLS, *one, SEP], [CLS, *two, SEP]]


@pytest.mark.parametrize("blocks", ["complete", "full", "sentence"])
def test_time_is_linear_in_the_length_of_a_sentence(blocks: str) -> None:
    assert_linear(lambda count: Packer(blocks, 8, True, len).add([7] * count), 50_000)


@settings(deadline=None)
@given(st.lists(lines, max_size=5), st.sampled_from([1, 20, 10**6]))
def test_each_line_is_encoded_as_by_the_tokenizer(texts: list[str], known: int) -> None:
    texts = [plain.words(plain.normalise(text)) for text in texts] * 2
    encoder = Encoder(TOKENIZER, by_word=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "MOST_WORDS", known)
        for text in texts:
            assert list(encoder([text])) == list(encode_lines(TOKENIZER, [text]))
    assert list(Encoder(TOKENIZER, by_word=True)(texts)) == list(encode_lines(TOKENIZER, texts))


def test_an_imported_tokenizer_sees_whole_lines() -> None:
    """RoBERTa's marks the words after a space, but not the first one of a line."""
    roberta = Tokenizer.from_str(TOKENIZER.to_str())
    roberta.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    roberta.train_from_iterator(["the cat sat on the mat"] * 3, trainers.BpeTrainer(show_progress=False))
    [ids] = Encoder(roberta, by_word=False)(["the cat sat on the mat"])
    assert [roberta.id_to_token(token) for token in ids] == ["the", "Ġcat", "Ġsat", "Ġon", "Ġthe", "Ġmat"]
