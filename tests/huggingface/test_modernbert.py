"""ModernBERT checkpoints to and from `transformers`, trained, fine-tuned and exported like BERT's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import InputError, UsageError
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.lineage.graph import Lineage
from tests.huggingface.conftest import (
    load_theirs,
    our_logits,
    padded_batch,
    run,
    their_logits,
    transformers,
    user_config,
)
from tests.huggingface.hf_folders import wordpiece
from tests.huggingface.test_import import check_same_function, load_ours

MODERN = ("encoder.architecture=modernbert", "proposal.architecture=modernbert", "encoder.layers=3")


@pytest.fixture(scope="module")
def modern(pretrained: Lineage, folder: Path) -> Lineage:
    """Returns a lineage whose methods, ELECTRA among them, are pretrained and one of them fine-tuned."""
    config = user_config(folder, *MODERN, 'methods=["mapnet","electra"]', "encoder.local_attention=8")
    lineage = Lineage(config, pretrained.artifacts)
    run(lineage, "pretrain", "finetune-glue")
    return lineage


def test_an_export_gives_the_same_logits_and_can_be_imported(modern: Lineage, tmp_path: Path) -> None:
    export_checkpoint(modern, tmp_path / "out", "mapnet", None, None)
    _, theirs = load_theirs(tmp_path / "out")
    assert type(theirs).__name__ == "ModernBertForMaskedLM"
    row, warnings = import_folder(modern.artifacts, tmp_path / "out", "again")
    assert warnings == []
    assert row.encoder["architecture"] == "modernbert" and row.encoder["local_attention"] == 8
    _, ours = load_ours(modern.artifacts, row)
    tokens_BL, attention_mask_BL = padded_batch(row.vocab_size, 16)
    expected = their_logits(theirs, tokens_BL, attention_mask_BL)
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


def test_electra_has_no_form_in_transformers(modern: Lineage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ELECTRA with ModernBERT"):
        export_checkpoint(modern, tmp_path / "out", "electra", None, None)


def save_modern(folder: Path, **settings: Any) -> None:
    with transformers() as library:
        sizes = {
            "vocab_size": wordpiece().get_vocab_size(), "hidden_size": 16, "num_hidden_layers": 4,
            "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 16, "pad_token_id": 0,
            "local_attention": 6, **{f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")},
        }  # fmt: skip
        torch.manual_seed(0)
        model = library.ModernBertForMaskedLM(library.ModernBertConfig(**sizes | settings))
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        library.PreTrainedTokenizerFast(
            tokenizer_object=wordpiece(), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
            mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"],
        ).save_pretrained(folder)  # fmt: skip


@pytest.mark.parametrize("every", [3, 2, 1])
def test_an_import_gives_the_same_results(every: int, tmp_path: Path, artifacts: Artifacts) -> None:
    save_modern(tmp_path / "modern", global_attn_every_n_layers=every)
    row, warnings = import_folder(artifacts, tmp_path / "modern", None)
    assert warnings == []
    assert (row.encoder["local_attention"], row.encoder["global_every"]) == ((6, every) if every > 1 else (0, 3))
    check_same_function(artifacts, row, tmp_path / "modern")


def test_the_older_format_of_the_config_is_read(tmp_path: Path, artifacts: Artifacts) -> None:
    """Files of 2024 have the two bases at the top, and how often attention is global."""
    folder = tmp_path / "modern"
    bases = {"full_attention": 500.0, "sliding_attention": 50.0}
    save_modern(folder, rope_parameters={k: {"rope_type": "default", "rope_theta": v} for k, v in bases.items()})
    new = import_folder(artifacts, folder, "new")[0]
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"], config["layer_types"]
    config |= {"global_rope_theta": 500.0, "local_rope_theta": 50.0, "global_attn_every_n_layers": 3}
    (folder / "config.json").write_text(json.dumps(config))
    old = import_folder(artifacts, folder, "old")[0]
    assert old.encoder == new.encoder and old.encoder["rope_theta"] == 500.0 and old.fingerprint == new.fingerprint


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("norm_bias", True, "norm_bias True is not supported, only False"),
        ("layer_types", ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"], None),
        ("layer_types", ["sliding_attention"] * 4, "layer_types must have full attention in the first"),
        ("rope_parameters", {"full_attention": {"rope_type": "yarn"}}, "only rope_type 'default'"),
    ],
)  # fmt: skip
def test_other_settings_are_refused(
    key: str, value: Any, message: str | None, tmp_path: Path, artifacts: Artifacts
) -> None:
    folder = tmp_path / "modern"
    save_modern(folder)
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    if message is None:
        assert import_folder(artifacts, folder, None)[0].encoder["global_every"] == 4
        return
    with pytest.raises(InputError, match=message):
        import_folder(artifacts, folder, None)
