"""ELECTRA end to end: pretrained, validated, fine-tuned, reported, and loaded in `transformers`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import Checkpoint, CorpusManifest, FinetuneRun
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.jobs.distributed import ALONE, DistContext
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.electra import Electra
from mapnet_cli.pretrain.electra import validate_detection
from mapnet_cli.report.stage import build
from mapnet_cli.text.shards import open_shards
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.huggingface.conftest import padded_batch, run, transformers, user_config
from tests.huggingface.hf_folders import save_bert
from tests.huggingface.test_use import MATCHING_IMPORT


@pytest.fixture(scope="module")
def trained(folder: Path) -> Lineage:
    """Returns a lineage with BERT and ELECTRA, both fine-tuned."""
    lineage = Lineage(user_config(folder, 'methods=["bert", "electra"]'), Artifacts(folder / "electra"))
    run(lineage, "prepare-corpus", "pretrain", "finetune-glue")
    return lineage


@pytest.fixture(scope="module")
def exported(trained: Lineage, folder: Path) -> Path:
    row = export_checkpoint(trained, folder / "exported electra", "electra", None, None)
    assert (row.method, row.step, row.validation_loss) == ("electra", 10, None)
    return folder / "exported electra"


def milestone(lineage: Lineage) -> Checkpoint:
    return lineage.artifacts.read(f"{lineage.pretraining('electra', 1).key}/step10", Checkpoint)


def model_of(lineage: Lineage) -> tuple[Electra, CorpusManifest]:
    config, artifacts = lineage.config, lineage.artifacts
    manifest, generator = artifacts.read(lineage.manifest, CorpusManifest), config.generator("electra")
    assert generator is not None
    model = Electra(config.encoder, manifest.vocab_size, generator)
    model.load_state_dict(load_checkpoint(artifacts.path(milestone(lineage).path))[0])
    return model.eval(), manifest


@torch.no_grad()
def test_transformers_gives_the_same_logits(trained: Lineage, exported: Path) -> None:
    ours, manifest = model_of(trained)
    with transformers() as library:
        tokenizer = library.AutoTokenizer.from_pretrained(exported)
        theirs, info = library.AutoModelForPreTraining.from_pretrained(exported, output_loading_info=True)
    assert type(theirs).__name__ == "ElectraForPreTraining"
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tokens_BL, attention_mask_BL = padded_batch(manifest.vocab_size, trained.config.encoder.max_length)
    expected_BL = theirs.eval()(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits
    assert torch.allclose(
        ours.detect(tokens_BL, attention_mask_BL)[attention_mask_BL], expected_BL[attention_mask_BL], atol=1e-4
    )
    assert theirs(**tokenizer("ba co den", return_tensors="pt")).logits.shape[0] == 1


def test_exported_folder_is_an_electra_discriminator(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    for text in ("AutoModelForPreTraining", "An ELECTRA discriminator", "| RTE | accuracy |", "- (no masked-language"):
        assert text in card
    assert "fill-mask" not in card
    settings = json.loads((exported / "config.json").read_text())
    assert settings["embedding_size"] == settings["hidden_size"] == 16
    with safe_open(exported / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert "electra.encoder.layer.0.attention.self.query.weight" in names
    assert not [name for name in names if not name.startswith(("electra.", "discriminator_predictions."))]


def test_held_out_metrics_are_deterministic_and_sharded_over_processes(trained: Lineage) -> None:
    model, manifest = model_of(trained)
    sequences = open_shards(trained.artifacts, manifest.validation)

    def measure(dist: DistContext = ALONE, count: int = 8) -> dict[str, float]:
        return validate_detection(model, sequences, count, torch.device("cpu"), "float32", dist)

    torch.manual_seed(99)
    assert measure() == pytest.approx(milestone(trained).validation, rel=1e-5)
    assert measure(count=7) != measure()
    assert model.training
    assert set(measure()) == {
        "detection_loss", "detection_accuracy", "detection_accuracy_replaced", "detection_accuracy_original",
        "replaced_share", "generator_loss",
    }  # fmt: skip

    class Adding(DistContext):
        """One of two processes; records the tensors instead of reducing them."""

        def all_reduce_sum_(self, tensor: torch.Tensor) -> torch.Tensor:
            parts.append(tensor)
            return tensor

    parts: list[torch.Tensor] = []
    for dist in (Adding(0, 2), Adding(1, 2), Adding()):
        measure(dist)
    torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=1e-5, atol=1e-5)


def test_report_has_a_row_without_validation_loss(trained: Lineage) -> None:
    key = trained.finetuning(GridRun("electra", 1, 10, "RTE", 16, 1e-3, 1)).key
    finished = trained.artifacts.read(key, FinetuneRun)
    assert (finished.failure, finished.checkpoint) == ("", milestone(trained).fingerprint)
    built = build(trained)
    assert built.value["missing"] == {}
    table = built.tables["table3"]
    place = table.columns.index("Held-out loss")
    losses: dict[Any, list[str]] = {}
    for row in table.rows:
        losses.setdefault(row[0].text, []).append(row[place].text)
    assert set(losses["ELECTRA"]) == {"-"}
    assert "-" not in losses["BERT"]
    assert any("ELECTRA: no masked-language-model head" in note for note in built.notes)


def test_training_starts_from_an_imported_encoder(folder: Path, artifacts: Artifacts) -> None:
    save_bert(folder / "tiny for electra")
    row = import_folder(artifacts, folder / "tiny for electra", "tiny")[0]
    config = user_config(
        folder, *MATCHING_IMPORT, 'methods=["electra"]', "method.electra.init_from=tiny", "pretrain.steps=1",
        "pretrain.warmup_steps=0",
        "pretrain.milestones=[1.0]", "pretrain.peak_lr=1e-9",
    )  # fmt: skip
    lineage = Lineage(config, artifacts)
    run(lineage, "prepare-corpus", "pretrain")
    key = lineage.pretraining("electra", 1).key
    found, given = load_checkpoint(artifacts.path(f"{key}/step1"))[0], load_checkpoint(artifacts.path(row.path))[0]
    for name in found.keys() & given.keys():
        torch.testing.assert_close(found[name], given[name], rtol=0, atol=1e-6)
    assert {name.split(".")[0] for name in found.keys() & given.keys()} == {"encoder"}
