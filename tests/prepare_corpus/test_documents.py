from pathlib import Path

import pytest

from mapnet_cli.config import Cleanup
from mapnet_cli.core.errors import InputError
from mapnet_cli.prepare_corpus import cleanup
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.sources import books, compressed, documents, reading
from mapnet_cli.prepare_corpus.sources.documents import read_cpython
from mapnet_cli.prepare_corpus.sources.reading import Problems
from tests.prepare_corpus.corpora import read


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path / "f", b"\xef\xbb\xbfone\r\ntwo\nthree\rfour") == (["one", "two", "three", "four", None], [])


def test_nul_bytes_are_removed_and_counted(tmp_path: Path) -> None:
    lines, problems = read(tmp_path / "f", b"ok\na\0b\0\n")
    assert lines == ["ok", "ab", None]
    assert problems == ["f: removed 2 NUL bytes, the first at byte 4 (line 2)"]


def test_invalid_utf8_is_repaired_skipped_or_an_error(tmp_path: Path) -> None:
    content = b"good\ncaf\xe9 and \xff, but \xef\xbf\xbd is fine\n"
    lines, problems = read(tmp_path / "f", content)
    assert lines == ["good", "caf\ufffd and \ufffd, but \ufffd is fine", None]
    assert problems == ["f: repaired invalid UTF-8 in 2 places, the first at byte 8 (line 2)"]
    assert read(tmp_path / "f", content, "skip") == ([], ["f: skipped, not UTF-8 at byte 8 (line 2)"])
    with pytest.raises(InputError, match=r"f: not UTF-8 at byte 8 \(line 2\); set corpus.on_bad_utf8"):
        read(tmp_path / "f", content, "fail")


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    assert read(tmp_path / "f", b"") == ([None], ["f: empty file"])


def test_an_overlong_line_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ", 10)
    monkeypatch.setattr(documents, "READ", 10)
    monkeypatch.setattr(compressed, "CHUNK", 7)
    for size in range(8, 40):
        lines, problems = read(tmp_path / "f", ("é" * size + "\nnext\n").encode(), "fail")
        assert lines == ["", "next", None]
        assert problems == ["f: byte 0 (line 1): the line has over 10 bytes and was skipped"]
    lines, problems = read(tmp_path / "f", b"0123456789\n01234567890\nb\xff")
    assert lines == ["0123456789", "", "b\ufffd", None]
    assert problems == [
        "f: byte 11 (line 2): the line has over 10 bytes and was skipped",
        "f: repaired invalid UTF-8 in 1 places, the first at byte 24 (line 3)",
    ]


def test_blank_lines_separate_documents(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "f", b"a\nb\n\n  \nc\n", documents="blank-lines")
    assert lines == ["a", "b", None, None, "c", None]


def test_hard_wrapped_paragraphs(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "f", b"\n  It was a well-\nknown man--\nthe best.\n\nNext\n", paragraphs="blank-lines")
    assert [line for line in lines if line] == ["It was a well-known man-- the best.", "Next"]
    assert lines[-1] is None
    assert "" in lines[1:3], "a blank line ends a paragraph"


def test_no_line_of_an_overlong_hard_wrapped_paragraph_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in parts that are too long for the clean-up, which counts them."""
    monkeypatch.setattr(books, "OVERLONG", 100)
    monkeypatch.setattr(cleanup, "OVERLONG", 100)
    content = "\n".join(f"Line number {number}" for number in range(52)).encode()
    lines, _ = read(tmp_path / "f", content, paragraphs="blank-lines")
    assert " ".join(line for line in lines if line) == content.decode().replace("\n", " ")
    dropped = Dropped()
    kept = [line for line in clean(lines, Cleanup(min_chars=0, min_letters=0, min_letter_share=0), dropped) if line]
    assert dropped.counts == {"max_chars": 7}
    assert len(kept) == 1, "the last part"


def test_cpython_source_yields_documents() -> None:
    lines = list(read_cpython(0, 1, 2))
    assert lines.count(None) == 2
    assert lines[-1] is None
    assert all(line is None or "\n" not in line for line in lines)


def test_problems_are_capped_but_counted() -> None:
    problems = Problems()
    for number in range(150):
        problems.add(str(number))
    assert (len(problems.lines), problems.count) == (100, 150)
    problems.lines.clear()
    problems.add("two\nlines\u2028and a key \udcff")
    assert problems.lines == ["two lines and a key \\udcff"], "one line of valid UTF-8"


def test_problems_of_a_corpus_are_capped_too() -> None:
    problems = Problems(150, [str(number) for number in range(100)])
    total = Problems()
    total.merge(problems.lines, problems.count)
    total.merge(["other"], 1)
    assert (len(total.lines), total.count) == (100, 151)
