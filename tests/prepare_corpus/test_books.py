"""Plain-text books: licences, marks, divided words, dialogue and encodings."""

from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mapnet_cli.config import Cleanup, Corpus, Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import InputError
from mapnet_cli.prepare_corpus import slices
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.paragraphs import read_slice
from mapnet_cli.prepare_corpus.sources import books
from mapnet_cli.prepare_corpus.sources.books import without_licence, without_marks
from mapnet_cli.prepare_corpus.sources.reading import Reading
from tests.growth import assert_linear
from tests.prepare_corpus.corpora import FUZZ, corpus_config, prepare, prose, read


@pytest.mark.parametrize(
    ("line", "expected", "rules"),
    [
        ("the _Morning Post_, _July 20._--The _cuisine_.", "the Morning Post, July 20.--The cuisine.", {"italics": 3}),
        ("PAUL (_bowing_). [_Enter_ Ione.] “_Oh!_”—_A_—", "PAUL (bowing). [Enter Ione.] “Oh!”—A—", {"italics": 4}),
        ("__init__, snake_case, _open; a _ b _ c", "__init__, snake_case, _open; a _ b _ c", {}),
        ("_a_ _b__c_ x_y_", "a _b__c_ x_y_", {"italics": 1}),
        ('to do."[178] His party[372] built, as it [12], on', 'to do." His party built, as it, on', {"notes": 3}),
        ("[144] Letter. In [1742] he, [a], [4a]", " Letter. In [1742] he, [a], [4a]", {"notes": 1}),
        ("[Footnote 47: _Works_, xix. 91.]", " Works, xix. 91. ", {"notes": 1, "italics": 1}),
        ("[Footnote: [greek: hudos], water]", " [greek: hudos], water ", {"notes": 1}),
        ("said.[Footnote 2: He did.] So", "said. He did.  So", {"notes": 1}),
        ("[Footnote 2: He [Smith] did so", " He [Smith] did so ", {"notes": 1}),
        ("The half-open interval (a, b]", "The half-open interval (a, b]", {}),
        ("known;[A] king[*], so.[†] [Pg 46]The [Page 7] k[A] = x[B]c [A]", "known; king, so. The  k[A] = x[B]c [A]",
         {"notes": 5}),
        ("A [Illustration] cat. [Illustration: The [old] cat.]", "A  cat. ", {"illustrations": 2}),
        ("[ILLUSTRATION: A caption that goes on", "", {"illustrations": 1}),
        ("AT&amp;T said &quot;no&#8217; &unknown; R&D &c; x", 'AT&T said "no’ &unknown; R&D &c; x', {"entities": 1}),
        ("Nothing to do.", "Nothing to do.", {}),
    ],
)  # fmt: skip
def test_marks_are_removed_and_counted(line: str, expected: str, rules: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    assert without_marks(line, counts) == expected
    assert counts == rules


@pytest.mark.parametrize(
    "mark",
    [
        "_",
        "_a",
        "_a_ ",
        "[",
        "[1",
        "[1] ",
        "[Illustration",
        "[Illustration: [",
        "[Footnote 1: ",
        "aa[*",
        "[Pg 1",
        "&amp;",
        "]",
    ],
)
def test_time_is_linear_in_repeated_marks(mark: str) -> None:
    assert_linear(lambda count: without_marks(mark * count, Counter()), 20_000)


START = "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***"


@pytest.mark.parametrize(
    ("lines", "expected", "removed"),
    [
        (["The Project Gutenberg eBook of Emma", "", START, "One.", END, "Licence", None], ["One.", None], 5),
        (["Header", "***START OF THIS PROJECT GUTENBERG EBOOK EMMA*** One.", "Two.", None], ["One.", "Two.", None], 2),
        (["*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*", "One.", None], ["One.", None], 1),
        (["a", "*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS", "One.", None], ["One.", None], 2),
        (["One.", "End of Project Gutenberg's Emma, by Jane Austen", "Licence", None], ["One.", None], 2),
        (["One.", "End of the Project Gutenberg EBook of Emma", END, "Licence", None], ["One.", None], 3),
        ([START, "One.", END, "End", START, "Two.", None, "Three", None], ["One.", "Two.", None, "Three", None], 4),
        (["One.", None, "Header", START, "Two.", None], ["One.", None, "Two.", None], 2),
        (["In this Project Gutenberg edition, the start of this", "One.", None], None, 0),
        (["One.", "", "Two.", None, None], None, 0),
    ],
)  # fmt: skip
def test_licences_are_left_out_and_counted(
    lines: list[str | None], expected: list[str | None] | None, removed: int
) -> None:
    reading = Reading()
    found = list(without_licence(iter(lines), reading))
    assert [line for line in found if line != ""] == (
        [line for line in lines if line != ""] if expected is None else expected
    )
    assert reading.markup.get("licence", 0) == removed


def test_a_long_header_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "HEADER_LINES", 5)
    lines = ["text"] * 6 + [START, "more", None]
    assert list(without_licence(iter(lines), Reading())) == ["text"] * 6 + ["", "more", None]


pieces = st.sampled_from(
    [START, END, "text", "End of Project Gutenberg", "", None, "_a_", "[1]", "con-", "vention", "--", "- "]
)


@FUZZ
@given(st.lists(pieces, max_size=30))
def test_any_book_is_read(tmp_path_factory: pytest.TempPathFactory, lines: list[str | None]) -> None:
    """A document stays a document, and text is only left out where the licence is counted."""
    reading = Reading()
    found = list(without_licence(iter(lines), reading))
    assert found.count(None) == lines.count(None)
    assert len(found) + reading.markup["licence"] >= len(lines)
    content = "\n".join(line or "" for line in lines).encode()
    again, problems = read(tmp_path_factory.getbasetemp() / "book", content, paragraphs="blank-lines", gutenberg=False)
    letters = [char for line in again for char in line or "" if char.isalpha()]
    assert Counter(letters) == Counter(char for char in content.decode() if char.isalpha())
    assert problems == ([] if content else ["f: empty file"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The con-\nvention met. Every convention meets.", "The convention met. Every convention meets."),
        ("The con-\nvention met.", "The con-vention met."),  # unknown
        ("A well-\nknown man is well-known.", "A well-known man is well-known."),
        ("It is to-\nday; to-day, today, Today.", "It is today; to-day, today, Today."),
        ('"Con-\n  vention," he said. A (Convention).', '"Convention," he said. A (Convention).'),
        ("A well-to-\ndo man; todo.", "A well-to-do man; todo."),
        ("The end--\nor not-\n-quite", "The end-- or not--quite"),
        ("In 1914-\n1918 and A-\nB, ab.", "In 1914- 1918 and A- B, ab."),
        ("The éco-\nlogie. Une écologie.", "The écologie. Une écologie."),
    ],
)
def test_hyphens_at_line_ends_follow_the_words_of_the_slice(tmp_path: Path, text: str, expected: str) -> None:
    lines, _ = read(tmp_path / "f", text.encode(), paragraphs="blank-lines")
    assert lines == [expected, None]
    kept, _ = read(tmp_path / "f", text.encode(), paragraphs="blank-lines", hyphens="keep")
    assert (kept[0] or "").replace("-", "") == expected.replace("-", "")


def test_words_of_other_files_of_the_slice_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The con-\nvention.")
    (tmp_path / "b.txt").write_text("A convention.")
    config = corpus_config(Source(path=str(tmp_path), paragraphs="blank-lines"), slice_mb=1)
    [part] = slices.input_slices(config)
    reading = Reading()
    assert next(iter(read_slice(part, "repair", reading, lambda progress: None))) == "The convention."
    assert reading.markup == {"hyphens": 1}


def test_marks_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    line = "_a_ [1] &amp;"
    assert read(tmp_path / "f", line.encode())[0] == ["a &", None]
    assert read(tmp_path / "f", line.encode(), book_marks=False)[0] == [line, None]
    assert read(tmp_path / "f", b'{"text": "_a_ [1] &amp;"}', kind="jsonl")[0] == ["a &", None]
    assert read(tmp_path / "f", f"<doc id>\n{line}\n</doc>".encode(), kind="wikiextractor")[0] == ["_a_ [1] &", None]


@pytest.mark.parametrize(
    ("encoding", "content", "expected", "places"),
    [
        ("latin-1", "café – naïve\n“ok”\n".encode("cp1252"), ["café \x96 naïve", "\x93ok\x94"], 5),
        ("cp1252", "café – naïve\n“ok”\n".encode("cp1252"), ["café – naïve", "“ok”"], 5),
        ("cp1252", "café\n".encode() + "café\n".encode("cp1252"), ["café", "café"], 1),
        ("cp1252", "é".encode() + b"\xe9\x81", ["éé\ufffd"], 1),
        ("cp1252", "café".encode(), ["café"], 0),
        ("koi8-r", "да".encode("koi8-r"), ["да"], 2),
    ],
)
def test_bytes_that_are_not_utf8_are_read_in_the_named_encoding(
    tmp_path: Path, encoding: str, content: bytes, expected: list[str], places: int
) -> None:
    lines, problems = read(tmp_path / "f", content, encoding)
    assert lines == [*expected, None]
    assert len(problems) == (places > 0)
    assert not places or problems[0].startswith(f"f: read {places} places in {encoding}, the first at byte ")


def test_on_bad_utf8_is_checked() -> None:
    assert Corpus(on_bad_utf8="latin-1").on_bad_utf8 == "latin-1"
    for name in ("latin-0", "utf-16", "rot13", "repairs", ""):
        with pytest.raises(ValidationError, match="neither repair, skip nor fail"):
            Corpus(on_bad_utf8=name)


DIALOGUE = [
    '"Where have you been so late?" he said.',
    '"Nowhere," answered she, "nowhere at all."',
    '"And without me, Margaret?"',
    '"I cannot tell you. Ask me tomorrow."',
]


def test_short_paragraphs_are_dropped_or_joined() -> None:
    def run(lines: list[str | None], rule: Literal["drop", "join"]) -> tuple[list[str | None], dict[str, int]]:
        dropped = Dropped()
        return list(clean(lines, Cleanup(short_paragraphs=rule), dropped)), dict(dropped.counts)

    long, together = prose(1), " ".join(DIALOGUE)
    lines: list[str | None] = [
        long,
        *DIALOGUE,
        long,
        "CHAPTER I",
        long,
        "THE END",
        None,
        *DIALOGUE[2:3],
        None,
        *DIALOGUE,
    ]
    assert run(lines, "drop") == ([long, long, long, None], {"min_chars": 11})
    kept = [long, together, long, long, None, together]
    assert run(lines, "join") == (kept, {"min_chars": 3})
    assert run([], "join") == ([], {})
    many: list[str | None] = ["Certainly, my dear."] * 1_000
    assert sum(len(line or "") for line in run(many, "join")[0]) > 19_000
    assert max(len(line or "") for line in run(many, "join")[0]) < 3_000


def test_changes_are_counted_on_the_card(tmp_path: Path) -> None:
    """Words beyond corpus.bpe_word_chars are named there, too."""
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(4):
        line = f"{prose(9 + number)} the girls’ co\u00adat[3] {'a' * 500}"
        text = f"Header\n{START}\n_{prose(number)}_\n{line}\n{END}\nEnd\n"
        (folder / f"{number}.txt").write_bytes(text.encode() + "caf\xe9 noir".encode("cp1252"))
    config = corpus_config(Source(path=str(folder)), on_bad_utf8="cp1252", bpe_word_chars=40)
    artifacts = Artifacts(tmp_path / "artifacts")
    manifest = prepare(config, artifacts)
    assert manifest.sources[0].markup == {
        "apostrophes": 4, "invisible_characters": 4, "italics": 4, "licence": 20, "notes": 4,
    }  # fmt: skip
    assert manifest.problem_count == 6
    assert any(
        "without 4 words of more than 40 characters (corpus.bpe_word_chars), such as aaaa" in p
        for p in manifest.problems
    )
    [card] = artifacts.root.glob("prepare-corpus/*/card.md")
    assert "Marks removed or replaced, by rule" in card.read_text() and "apostrophes" in card.read_text()


def test_fail_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="to repair, skip or an encoding"):
        read(tmp_path / "f", b"\xe9", "fail")
    assert read(tmp_path / "f", b"\xe9", "latin-1")[0] == ["é", None]
