"""Fixture: a user's folder with text, GLUE data and a pretrained model."""

from pathlib import Path

import pytest

from mapnet_cli.cli.stages import run_stages
from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.lineage.graph import Lineage
from tests.conftest import SMALL
from tests.finetune_glue.glue_files import write_glue, write_tests
from tests.prepare_corpus.corpora import text_folder


class User:
    """Runs stages with the settings of one user and one artifact directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = Artifacts(folder / "artifacts")

    def settings(self, *overrides: str) -> list[str]:
        return [
            *SMALL, f"corpus.sources=[{{path='{self.folder}/books'}}]", "corpus.validation_every=3",
            "corpus.cleanup.min_letters=10", f"finetune.data={self.folder}/glue", 'finetune.tasks=["RTE"]',
            'methods=["bert"]', "pretrain.milestones=[1.0]", *overrides,
        ]  # fmt: skip

    def config(self, *overrides: str) -> Config:
        return resolve("demo", None, self.settings(*overrides), {}).config

    def lineage(self, *overrides: str) -> Lineage:
        """Returns a new Lineage, which hasn't hashed any file yet."""
        return Lineage(self.config(*overrides), self.artifacts)

    def run(self, stage: str, *overrides: str) -> Lineage:
        lineage = self.lineage(*overrides)
        run_stages([stage], lineage, Console(quiet=True), workers=0, force=False)
        return lineage


@pytest.fixture(scope="package")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    folder = tmp_path_factory.mktemp("user")
    text_folder(folder / "books")
    write_glue(folder / "glue")
    write_tests(folder / "glue")
    user = User(folder)
    user.run("prepare-corpus")
    user.run("pretrain")
    return user
