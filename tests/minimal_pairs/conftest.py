"""Fixture: two pretrained methods, ELECTRA and an import; scores from `transformers`, computed the slow way."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.lineage.graph import Lineage
from tests.huggingface.conftest import run, settings
from tests.huggingface.hf_folders import save_bert
from tests.prepare_corpus.corpora import prose, text_folder

SENTENCES = [
    f"{' '.join(prose(900 + n, 1).split()[: 2 + n % 5])}, {word}." for n, word in enumerate(["Monvexor", "ba?"] * 9)
]


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("good\tbad\n" + "".join(f"{good}\t{bad}\n" for good, bad in pairs), encoding="utf-8")
    return path


class User:
    """A folder with books and pairs, and an artifact directory with pretrained methods and the import "tiny"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = Artifacts(folder / "artifacts")
        text_folder(folder / "books")
        write_pairs(folder / "mine.tsv", list(zip(SENTENCES[::2], SENTENCES[1::2], strict=True)))

    def settings(self, *overrides: str) -> list[str]:
        return settings(
            self.folder, 'methods=["bert", "mapnet", "electra"]', "encoder.max_length=40",
            "pretrain.milestones=[0.5, 1.0]", "finetune.data=probe",
            f'minimal_pairs.data=["{self.folder}/mine.tsv"]', *overrides,
        )  # fmt: skip

    def lineage(self, *overrides: str) -> Lineage:
        return Lineage(resolve("demo", None, self.settings(*overrides), {}).config, self.artifacts)

    def score(self, *overrides: str) -> Lineage:
        lineage = self.lineage(*overrides)
        run(lineage, "minimal-pairs")
        return lineage


@pytest.fixture(scope="package")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    user = User(tmp_path_factory.mktemp("pairs"))
    save_bert(user.folder / "tiny", max_position_embeddings=40)
    import_folder(user.artifacts, user.folder / "tiny", None)
    run(user.lineage(), "prepare-corpus", "pretrain")
    return user


@torch.no_grad()
def reference(theirs: tuple[Any, Any], text: str, whole_words: bool) -> float:
    """Returns a sentence's score under a tokenizer and model of `transformers`, one mask at a time.

    Without `whole_words` it is the formula of BabyLM's pipeline (`process_mlm_sentences` and `compute_mlm_results` of
    babylm/evaluation-pipeline-2025): for every token with characters of the sentence, the log-softmax at the token
    after replacing it by [MASK], summed. With `whole_words` it is that of minicons' "within_word_l2r".
    """
    tokenizer, model = theirs
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, words, total = encoded["input_ids"], encoded.word_ids(), 0.0
    for position, (_, end) in enumerate(encoded["offset_mapping"]):
        if end == 0:
            continue
        masked = torch.tensor([ids])
        masked[0, position] = tokenizer.mask_token_id
        for later in range(position + 1, len(ids)) if whole_words else ():
            if words[later] == words[position]:
                masked[0, later] = tokenizer.mask_token_id
        logits_V = model(input_ids=masked, attention_mask=torch.ones_like(masked)).logits[0, position]
        total += float(logits_V.log_softmax(0)[ids[position]])
    return total
