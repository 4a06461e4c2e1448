"""Exact de-duplication, compared with a set, for any number of hashes in memory at a time."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.core.artifacts import ArtifactId, Artifacts, Marker
from mapnet_cli.jobs.job import Progress
from mapnet_cli.prepare_corpus import paragraphs
from mapnet_cli.prepare_corpus.outputs import CleanedSlice, CorpusKeys, Deduplication
from mapnet_cli.prepare_corpus.paragraphs import Deduplicate


def silent(progress: Progress) -> None:
    pass


def kept(root: Path, slices: list[list[bytes]], enabled: bool = True) -> tuple[list[list[bool]], Artifacts]:
    """Returns which paragraphs of each slice are kept, given their hashes."""
    import numpy as np

    artifacts = Artifacts(root)
    text = ArtifactId("text", "text-fingerprint")
    keys = CorpusKeys(text, ArtifactId("corpus", "corpus-fingerprint"), len(slices))
    for key, hashes in zip(keys.each("clean"), slices, strict=True):
        file = artifacts.path(f"{key}.hashes")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(hashes))
        row = CleanedSlice(
            paragraphs=len(hashes), words=0, bytes=0, dropped={}, examples={}, left_out={}, markup={}, problems=[],
            problem_count=0,
        )  # fmt: skip
        artifacts.publish(Marker(key, "", row.to_json(), artifacts.checksums([file])))
    job = Deduplicate(artifact=ArtifactId(keys.of("deduplicate"), text.fingerprint), keys=keys, enabled=enabled)
    output = job.run(artifacts, silent)
    assert output.files == [artifacts.path(keys.keep(number)) for number in range(len(slices))]
    flags = [np.load(file).tolist() for file in output.files]
    dropped = [flag.count(False) for flag in flags]
    assert output.result == Deduplication(dropped=sum(dropped), dropped_by_slice=dropped)
    return flags, artifacts


hashes = st.sampled_from([bytes([n * 37 % 256]) * 8 + bytes([m]) * 8 for n in range(9) for m in range(2)])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(hashes, max_size=12), min_size=1, max_size=5), st.sampled_from([1, 3, 7, 1000]))
def test_the_first_duplicate_is_kept(
    tmp_path_factory: pytest.TempPathFactory, slices: list[list[bytes]], at_a_time: int
) -> None:
    seen: set[bytes] = set()
    expected = [[not (one in seen or seen.add(one)) for one in part] for part in slices]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paragraphs, "SORTED", at_a_time)
        found, artifacts = kept(tmp_path_factory.mktemp("d"), slices)
    assert found == expected
    assert not list(artifacts.root.rglob(".tmp-*"))


def test_deduplication_can_be_disabled(tmp_path: Path) -> None:
    assert kept(tmp_path, [[b"x" * 16] * 2, [], [b"x" * 16]], enabled=False)[0] == [[True, True], [], [True]]


def test_memory_is_bounded_for_a_single_repeated_paragraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows belong to one bucket; of those read together, only one gets there."""
    sizes: list[int] = []
    real = paragraphs._firsts
    monkeypatch.setattr(paragraphs, "SORTED", 50)
    monkeypatch.setattr(paragraphs, "_firsts", lambda rows: sizes.append(len(rows)) or real(rows))
    flags, _ = kept(tmp_path, [[b"y" * 16] * 500, [b"z" * 16, b"y" * 16]])
    assert sum(map(sum, flags)) == 2
    assert len(sizes) > 9
    assert max(sizes) <= 52
