from pathlib import Path

import pytest

from mapnet_cli.core.errors import UsageError
from mapnet_cli.prepare_corpus import sentences
from mapnet_cli.prepare_corpus.sentences import Segmenter


@pytest.fixture(scope="module")
def split() -> Segmenter:
    return Segmenter("")


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("Mr. Smith left at 5 p.m. on Monday. He came back!", ["Mr. Smith left at 5 p.m. on Monday.", "He came back!"]),
        ('He came. "Go on," she said. "Now."', ["He came.", '"Go on," she said.', '"Now."']),
        ('It ended. ("Really?") Yes.', ["It ended.", '("Really?")', "Yes."]),
        ('She said "yes." He said "no."', ['She said "yes."', 'He said "no."']),
        ("Word", ["Word"]),
        ("?", ["?"]),
    ],
)
def test_sentences(split: Segmenter, paragraph: str, expected: list[str]) -> None:
    assert list(split([paragraph, None])) == [expected, None]


def test_a_new_vocabulary_does_not_change_the_result(split: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    paragraphs = ["One. Two.", None, "Three. Four five.", "Six.", None]
    whole = list(split(paragraphs))
    monkeypatch.setattr(sentences, "MOST_WORDS", 5)
    assert list(split(paragraphs)) == whole == [["One.", "Two."], None, ["Three.", "Four five."], ["Six."], None]


def test_a_pipeline_can_be_loaded_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "none")
    nlp.add_pipe("sentencizer", config={"punct_chars": [";"]})
    nlp.to_disk(tmp_path / "semicolons")
    monkeypatch.setattr(sentences, "ZONE_CHARS", 5)
    split = Segmenter(str(tmp_path / "semicolons"))
    assert list(split(["One; two. Three", None, "Four"])) == [["One;", "two. Three"], None, ["Four"]]
    with pytest.raises(UsageError, match="sets no sentence starts"):
        list(Segmenter(str(tmp_path / "none"))(["One two."]))
