from pathlib import Path

import pytest

from mapnet_cli.config import Source
from mapnet_cli.errors import InputError
from mapnet_cli.prepare_corpus import documents
from mapnet_cli.prepare_corpus.documents import Problems, read_cpython, read_file


def read(path: Path, content: bytes, on_bad_utf8: str = "repair", **source: str) -> tuple[list[str | None], list[str]]:
    path.write_bytes(content)
    problems = Problems()
    lines = list(read_file(path, "f", Source(path=str(path), **source), on_bad_utf8, problems))
    return lines, problems.lines


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path / "f", b"\xef\xbb\xbfone\r\ntwo\nthree\rfour") == (["one", "two", "three", "four", None], [])


def test_nul_bytes_are_removed_and_counted(tmp_path: Path) -> None:
    lines, problems = read(tmp_path / "f", b"ok\na\0b\0\n")
    assert lines == ["ok", "ab", None]
    assert problems == ["f: removed 2 NUL bytes, the first at byte 4 (line 2)"]


def test_bad_utf8_three_ways(tmp_path: Path) -> None:
    content = b"good\ncaf\xe9 and \xff, but \xef\xbf\xbd is fine\n"
    lines, problems = read(tmp_path / "f", content)
    assert lines == ["good", "caf\ufffd and \ufffd, but \ufffd is fine", None]
    assert problems == ["f: repaired 2 places that are not UTF-8, the first at byte 8 (line 2)"]
    assert read(tmp_path / "f", content, "skip") == ([], ["f: skipped, not UTF-8 at byte 8 (line 2)"])
    with pytest.raises(InputError, match=r"f: not UTF-8 at byte 8 \(line 2\); corpus.on_bad_utf8"):
        read(tmp_path / "f", content, "fail")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    assert read(tmp_path / "f", b"") == ([None], ["f: empty file"])


def test_an_endless_line_is_cut_between_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "READ", 10)
    for pad in range(4):
        lines, problems = read(tmp_path / "f", ("a" * pad + "漢字漢字漢字漢字\nnext\n").encode(), "fail")
        assert lines[1:] == ["next", None]
        assert set(lines[0] or "") <= set("a漢字")
        assert problems == ["f: line 1 has over 10 bytes and was left out"]


def test_blank_lines_separate_documents(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "f", b"a\nb\n\n  \nc\n", documents="blank-lines")
    assert lines == ["a", "b", None, None, "c", None]


def test_hard_wrapped_paragraphs(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "f", b"\n  It was a well-\nknown man--\nthe best.\n\nNext\n", paragraphs="blank-lines")
    assert [line for line in lines if line] == ["It was a well-known man-- the best.", "Next"]
    assert lines[-1] is None
    assert "" in lines[1:3], "a paragraph never runs on over a blank line"


def test_wikiextractor(tmp_path: Path) -> None:
    content = (
        '<doc id="1" url="u" title="A &quot;B&quot; &amp; C">\nA "B" & C\n\nFirst text.\nA "B" & C\n</doc>\n'
        '<doc id="2" url="u" title="Two">\nTwo\n\nSecond.\n</doc>\nstray\n'
        '<doc id="3" url="u" title="Cut">\nCut\n\nThird.'
    )
    lines, problems = read(tmp_path / "f", content.encode(), kind="wikiextractor")
    assert [line for line in lines if line != ""] == ["First text.", 'A "B" & C', None, "Second.", None, "Third.", None]
    assert problems == [
        "f: the last <doc> has no </doc>, so the file may be truncated",
        "f: left out 1 lines outside <doc> blocks",
    ]
    _, problems = read(tmp_path / "f", b"plain\n", kind="wikiextractor")
    assert "no <doc ...> blocks at all" in problems[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('Sentence.<ref name="a" /> Next.<ref>Note 5.</ref>', "Sentence. Next."),
        ('a <dfn id=">called pocket</dfn>; one<br />two<BR>three', "a called pocket; one two three"),
        ("<poem>Roses", " Roses"),
        ("where x < y and y > z, <S, T> and <http://x.org>", "where x < y and y > z, <S, T> and <http://x.org>"),
    ],
)
def test_left_over_tags_go(tmp_path: Path, line: str, expected: str) -> None:
    content = f'<doc id="1" url="u" title="T">\nT\n{line}\n</doc>'.encode()
    assert read(tmp_path / "f", content, kind="wikiextractor") == ([expected, None], [])


def test_cpython_holds_the_probe_documents_out() -> None:
    lines = list(read_cpython(0, 1, 2))
    assert lines.count(None) == 2
    assert lines[-1] is None
    assert all(line is None or "\n" not in line for line in lines)


def test_problems_are_capped_but_counted() -> None:
    problems = Problems()
    for number in range(150):
        problems.add(str(number))
    assert (len(problems.lines), problems.count) == (100, 150)
    total = Problems()
    total.merge(problems.lines, problems.count)
    total.merge(["other"], 1)
    assert (len(total.lines), total.count) == (100, 151)


def test_rows_of_a_dataset_on_disk_are_documents(tmp_path: Path) -> None:
    from datasets import Dataset

    texts = ["one\ntwo", "", "three\u0000"]
    Dataset.from_dict({"text": texts, "title": ["a", "b", "c"]}).save_to_disk(str(tmp_path / "set"))
    (file,) = (tmp_path / "set").glob("*.arrow")
    source = Source(kind="dataset", path=str(tmp_path / "set"))
    problems = Problems()
    assert list(read_file(file, "f", source, "repair", problems)) == ["one", "two", None, "three", None]
    assert problems.lines == ["f: row 1 has no text"]
    with pytest.raises(InputError, match=r"no column 'body', only text, title"):
        list(read_file(file, "f", source.model_copy(update={"column": "body"}), "repair", problems))
