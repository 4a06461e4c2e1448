"""Shared fixtures: small configs, a small corpus made without spaCy, and real data where available."""

import os
import shutil
import signal
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run in parallel

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.records import CorpusManifest, SourceCounts
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.text.bpe import train_tokenizer
from mapnet_cli.text.shards import shard_files, writing_shard
from mapnet_cli.text.words import CLS, SEP

SMALL = (
    "corpus.vocab_size=300",
    "corpus.block_length=16",
    "encoder.architecture=bert",
    "encoder.init_std=0.1",
    "encoder.initial_positions=sinusoidal",
    "encoder.layers=1",
    "encoder.hidden=16",
    "encoder.heads=2",
    "encoder.ffn=32",
    "encoder.max_length=16",
    "proposal.architecture=bert",
    "proposal.init_std=0.1",
    "proposal.initial_positions=sinusoidal",
    "proposal.layers=1",
    "proposal.hidden=8",
    "proposal.heads=2",
    "proposal.ffn=16",
    "proposal.max_length=16",
    "pretrain.steps=10",
    "pretrain.batch_size=4",
    "pretrain.peak_lr=1.5e-3",
    "pretrain.warmup_steps=2",
    "pretrain.log_every=2",
    "pretrain.validate_every=5",
    "pretrain.validation_sequences=8",
    "pretrain.checkpoint_every=3",
    "pretrain.precision=float32",
    "finetune.batch_sizes=[16]",
    "finetune.epochs=1",
    "finetune.milestones=[]",
    "finetune.pooling=cls",
    "finetune.untrained=false",
    "finetune.learning_rates=[1e-3]",
    "finetune.seeds=[1]",
    "finetune.precision=float32",
    'finetune.subsets=["CoLA","SST-2","MRPC","STS-B","QQP","MNLI","QNLI","RTE"]',
)


NOBODY = 65534
"""A user without rights."""
METHODS = Path(__file__).with_name("methods.toml")
"""Additional methods, so that every strategy is covered."""


def small_config(*overrides: str) -> Config:
    """Returns a demo config small enough to run in a second, with a method for every strategy."""
    return resolve("demo", METHODS, [*SMALL, *overrides], {}).config


@pytest.fixture
def signals_not_ignored() -> Iterator[None]:
    """Under nohup or in a script's background, SIGHUP or SIGINT is ignored, and mapnet leaves it so."""
    ignored = [number for number in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with archives of real data next to the checkout; skips the test if it doesn't exist."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture
def compiler() -> None:
    """Skips the test if torch.compile can't work on the CPU."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def make_corpus(artifacts: Artifacts) -> Callable[[Config], CorpusManifest]:
    """Returns a function that writes a small finished corpus for a config to the artifact directory."""

    def make(config: Config) -> CorpusManifest:
        rng = np.random.default_rng(0)
        key = Lineage(config, artifacts).corpus.key
        words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
        tokenizer = train_tokenizer([" ".join(rng.choice(words, 12)) for _ in range(300)], config.corpus.vocab_size)
        artifacts.path(key).mkdir(parents=True)
        tokenizer.save(str(artifacts.path(f"{key}/tokenizer.json")))
        vocab = tokenizer.get_vocab_size()
        counts = {"train": 60, "validation": 12}
        for name, count in counts.items():
            with writing_shard(artifacts.path(f"{key}/{name}"), vocab) as shard:
                for _ in range(count):
                    length = int(rng.integers(3, config.corpus.block_length - 1))
                    shard.add([CLS, *rng.integers(5, vocab, length).tolist(), SEP])
        sums = {
            "documents": 2, "paragraphs": 2, "sentences": 72, "words": 900, "tokens": 1000,
            "train_sequences": 60, "validation_sequences": 12,
        }  # fmt: skip
        manifest = CorpusManifest(
            **sums, unknown_tokens=0, dropped={},
            sources=[SourceCounts(kind="cpython", **sums, dropped={}, left_out={}, markup={})],
            problem_count=0, problems=[], vocab_size=vocab,
            block_length=config.corpus.block_length, train=[f"{key}/train"], validation=[f"{key}/validation"],
            tokenizer=f"{key}/tokenizer.json",
        )  # fmt: skip
        files = [file for name in counts for file in shard_files(artifacts.path(f"{key}/{name}"))]
        files.append(artifacts.path(manifest.tokenizer))
        artifacts.publish(Marker(f"{key}/manifest", "test", manifest.to_json(), artifacts.checksums(files)))
        return manifest

    return make


@contextmanager
def unprivileged() -> Iterator[None]:
    """Gives up the rights of root, to whom every file is readable."""
    root = os.getuid() == 0
    if root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can read; pytest's own are private."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
