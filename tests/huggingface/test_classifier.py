"""A kept fine-tuned model gives the same logits and predictions in `transformers`, from plain text."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import UsageError
from mapnet_cli.finetune_glue.classifier import load_kept
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.finetune_glue.loop import outputs
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.huggingface.export import export_classifier
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.lineage.graph import Lineage
from tests.huggingface.conftest import run, transformers, user_config
from tests.huggingface.hf_folders import save_bert
from tests.huggingface.test_modernbert import save_modern

SETTINGS = (
    "finetune.keep=best", "finetune.learning_rates=[1e-2]", 'finetune.tasks=["RTE","STS-B","SST-2"]',
    'finetune.subsets=["RTE","STS-B","SST-2"]', 'methods=["bert"]', 'imports=["tiny"]', "encoder.max_length=48",
    "proposal.max_length=48",
)  # fmt: skip
ROWS = {"bert": ("bert", 1, 10), "tiny": ("tiny", 0, 0)}


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Lineage:
    """Returns a lineage whose method and import, with segments, are fine-tuned on three tasks."""
    artifacts = Artifacts(folder / "kept")
    save_bert(folder / "tiny-for-tasks", max_position_embeddings=48)
    import_folder(artifacts, folder / "tiny-for-tasks", "tiny")
    lineage = Lineage(user_config(folder, *SETTINGS), artifacts)
    run(lineage, "prepare-corpus", "pretrain", "finetune-glue")
    return lineage


@torch.no_grad()
def their_logits(folder: Path, texts: list[tuple[str, ...]]) -> tuple[Any, torch.Tensor]:
    """Returns the model and its logits for plain texts."""
    with transformers() as library:
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
        model, info = library.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()), info
        batch = tokenizer(*map(list, zip(*texts, strict=True)), padding=True, truncation=True, return_tensors="pt")
        return model, model.eval()(**batch).logits


@pytest.mark.parametrize("task", ["RTE", "STS-B", "SST-2"])
@pytest.mark.parametrize("name", ROWS)
def test_logits_and_predictions_are_equal(name: str, task: str, tuned: Lineage, folder: Path, tmp_path: Path) -> None:
    row = export_classifier(tuned, tmp_path / "out", name, None, None, task)
    spec, key = TASKS[task], tuned.kept(*ROWS[name], task).key
    dev = read_examples(folder / "glue" / task, spec, "dev")
    model, logits = their_logits(tmp_path / "out", dev.texts)
    assert type(model).__name__ == "BertForSequenceClassification"
    data = load_task(tuned.artifacts, spec, tuned.task(task, tuned.tokenizer_of(name)).key)[1][""]
    ours = outputs(load_kept(tuned.artifacts, key, spec, tuned.config), data)
    assert torch.allclose(logits, 5 * ours if spec.regression else ours, atol=1e-4)
    assert list(model.config.id2label.values()) == list(spec.labels or ["score"])
    with (tuned.artifacts.path(row.path) / "dev.tsv").open(newline="") as file:
        kept = list(csv.DictReader(file, delimiter="\t"))
    if spec.regression:
        found = logits[:, 0].clamp(0, 5).tolist()
        assert [float(example["prediction"]) for example in kept] == pytest.approx(found, abs=1e-4)
    else:
        found = [model.config.id2label[n] for n in logits.argmax(dim=1).tolist()]
        assert [example["prediction"] for example in kept] == found
    with transformers() as library:
        pair = {"text": "It rained.", "text_pair": "It was wet."} if len(spec.texts) > 1 else "It rained."
        answer = library.pipeline("text-classification", str(tmp_path / "out"))(pair)
        assert (answer if isinstance(answer, dict) else answer[0])["label"] in (spec.labels or ["score"])


def test_card_says_what_the_model_is(tuned: Lineage, tmp_path: Path) -> None:
    row = export_classifier(tuned, tmp_path / "out", "bert", None, None, "RTE")
    card = (tmp_path / "out/README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "| Task | RTE |" in card
    assert "| Output | entailment, not_entailment |" in card
    assert f"accuracy {100 * row.epochs[-1].metrics['accuracy']:.2f}" in card
    assert "| Run | batch 16, lr 0.01, seed 1, epoch 1: the best on the dev set |" in card
    (result,) = [each for each in ModelCard(card).data.eval_results if each.metric_type == "accuracy"]
    assert (result.dataset_name, result.dataset_split, result.dataset_config) == ("GLUE RTE", "validation", "rte")
    assert result.metric_value == pytest.approx(row.epochs[-1].metrics["accuracy"], abs=1e-4)
    assert re.search(r"classify\(\{.*text_pair", card) and "Moses" in card


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["finetune.pooling=mean"], 'no classifier whose head is that of finetune.pooling = "mean"'),
        (["finetune.seeds=[8]"], 'no model of RTE was kept for bert: set finetune.keep = "best" and run'),
        (['finetune.tasks=["SST-2"]'], "'RTE' is not in finetune.tasks"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused(
    settings: list[str], message: str, tuned: Lineage, folder: Path, tmp_path: Path
) -> None:
    lineage = Lineage(user_config(folder, *SETTINGS, *settings), tuned.artifacts)
    with pytest.raises(UsageError, match=message):
        export_classifier(lineage, tmp_path / "out", "bert", None, None, "RTE")
    assert not (tmp_path / "out").exists()


def test_modernbert_is_refused(folder: Path, artifacts: Artifacts, tmp_path: Path) -> None:
    save_modern(tmp_path / "modern")
    import_folder(artifacts, tmp_path / "modern", None)
    lineage = Lineage(user_config(folder, "methods=[]", 'imports=["modern"]'), artifacts)
    with pytest.raises(UsageError, match="no classifier whose head is that of a ModernBERT encoder here"):
        export_classifier(lineage, tmp_path / "out", None, None, None, "RTE")
