from itertools import islice

from mapnet_cli.text.python_docs import harvest, paragraphs


def test_parts_are_consecutive_and_complete() -> None:
    parts = 150
    whole = [document.name for document in islice(harvest(), 6)]
    found: list[str] = []
    for part in range(parts):
        found += [document.name for document in harvest(part, parts)]
        if len(found) >= len(whole):
            break
    assert found[: len(whole)] == whole
    last = list(harvest(parts - 1, parts))
    assert last and all(document.name.startswith("topic ") for document in last)


def test_paragraphs_exclude_code() -> None:
    text = "First lines\nof prose.\n\n    indented = code\n\n>>> doctest\n\nMore prose."
    assert paragraphs(text) == ["First lines of prose.", "More prose."]
