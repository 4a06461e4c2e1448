"""An exported checkpoint gives the same logits and token ids in `transformers`."""

import json
import math
import re
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from mapnet_cli.config import Source
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.huggingface.model_card import model_card
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.report.stage import build
from mapnet_cli.text.bpe import encode_lines, load_tokenizer
from mapnet_cli.text.normalise import prepare_line
from mapnet_cli.text.words import CLS, MASK, PAD, SEP, UNK
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.huggingface.conftest import (
    load_theirs,
    our_logits,
    padded_batch,
    run,
    their_logits,
    transformers,
    user_config,
)

ODD = (
    "Ba co “den” fu's U.S. garhi, (lumon)!", "cafe\u0301 İstanbul ΟΔΟΣ Straße ǅ ﬁ", "漢字 😀 a\u200bb\u00a0c\x07",
    "▁ ▁▁a  b", "e-mail don't 3.5% <s> &amp;", "", "Mr. Ba\n (den):  fu… No. 5. No. Ba", "‘Ba’ ``co'', ba—co 5 %.",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(pretrained: Lineage, folder: Path) -> Path:
    row = export_checkpoint(pretrained, folder / "exported", "mapnet", None, None)
    assert (row.method, row.pretrain_seed, row.step) == ("mapnet", 1, 10)
    return folder / "exported"


@pytest.fixture(scope="module")
def theirs(exported: Path) -> tuple[Any, Any]:
    return load_theirs(exported)


def own_model(lineage: Lineage, method: str) -> PretrainingModel:
    tensors, facts = load_checkpoint(lineage.artifacts.path(f"{lineage.pretraining(method, 1).key}/step10"))
    sizes = lineage.config.proposal if method == "mapnet" else None
    model = PretrainingModel(lineage.config.encoder, facts["vocab_size"], sizes)
    model.load_state_dict(tensors)
    return model.eval()


def test_logits_are_equal(pretrained: Lineage, theirs: tuple[Any, Any]) -> None:
    config, ours = pretrained.config, own_model(pretrained, "mapnet")
    tokens_BL, attention_mask_BL = padded_batch(len(ours.head.bias), config.encoder.max_length)
    expected = their_logits(theirs[1], tokens_BL, attention_mask_BL)
    assert expected.shape[1] == len(ours.head.bias)
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


def test_token_ids_of_plain_text_are_equal(pretrained: Lineage, theirs: tuple[Any, Any], folder: Path) -> None:
    tokenizer, lowercase = theirs[0], pretrained.config.corpus.lowercase
    ours = load_tokenizer(pretrained.artifacts.path(f"{pretrained.corpus.key}/tokenizer.json"))
    books = [line for path in sorted((folder / "books").rglob("*.txt")) for line in path.read_text().splitlines()]
    texts = [*books, *ODD]
    prepared = [prepare_line(text, lowercase) for text in texts]
    for text, ids in zip(texts, encode_lines(ours, prepared), strict=True):
        assert tokenizer(text)["input_ids"] == [CLS, *ids, SEP], text
    assert UNK not in tokenizer(books)["input_ids"][0]


def test_pairs_have_the_fairseq_layout(theirs: tuple[Any, Any]) -> None:
    tokenizer = theirs[0]
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("ba co", "den"))
    pair = tokenizer("ba co", "den", return_token_type_ids=True)
    assert pair["input_ids"] == [CLS, *one, SEP, SEP, *two, SEP]
    assert set(pair["token_type_ids"]) == {0}


def test_tokenizer_class_and_special_tokens(theirs: tuple[Any, Any], pretrained: Lineage) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = theirs[0]
    assert type(tokenizer) is PreTrainedTokenizerFast
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [getattr(tokenizer, f"{name}_token_id") for name in names] == [PAD, UNK, CLS, SEP, MASK]
    assert tokenizer.model_max_length == pretrained.config.encoder.max_length


@pytest.mark.parametrize("text", ["Ba co [MASK] (den), fu.", "[MASK], co.", "Ba's [MASK][MASK] fu? [MASK]"])
def test_mask_in_plain_text_is_one_token_and_changes_no_other(text: str, theirs: tuple[Any, Any]) -> None:
    tokenizer, _ = theirs
    ids = tokenizer(text)["input_ids"]
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("[MASK]")]
    assert ids == [CLS, *parts[0], *(token for part in parts[1:] for token in (MASK, *part)), SEP]


def test_fill_mask_gives_the_probabilities_of_the_corpus_text(
    exported: Path, pretrained: Lineage, theirs: tuple[Any, Any]
) -> None:
    """The pipeline takes plain text, as the model card says."""
    text = "Ba’s (den) [MASK], fu."
    ours = load_tokenizer(pretrained.artifacts.path(f"{pretrained.corpus.key}/tokenizer.json"))
    words = prepare_line(text.replace("[MASK]", "Xyz"), pretrained.config.corpus.lowercase).split(" xyz ")
    left, right = encode_lines(ours, words)
    tokens_BL = torch.tensor([[CLS, *left, MASK, *right, SEP]])
    expected_V = their_logits(theirs[1], tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool))[1 + len(left)]
    with transformers() as library:
        found = library.pipeline("fill-mask", str(exported))(text)
    probabilities = expected_V.softmax(0).topk(len(found))
    assert [row["token"] for row in found] == probabilities.indices.tolist()
    assert [row["score"] for row in found] == pytest.approx(probabilities.values.tolist(), abs=1e-5)


def test_plain_encoder_loads_the_export(exported: Path, theirs: tuple[Any, Any]) -> None:
    """AutoModel and AutoTokenizer, which sentence-transformers uses, give finite vectors for a batch of texts."""
    with transformers() as library:
        model = library.AutoModel.from_pretrained(exported)
    batch = theirs[0](["Ba co.", "Den “fu”, (ba) co."], padding=True, truncation=True, return_tensors="pt")
    hidden_BLH = model(**batch).last_hidden_state
    assert hidden_BLH.shape[:2] == batch["input_ids"].shape and hidden_BLH.isfinite().all()


def test_transformers_measures_the_losses_of_mapnets_own_models(
    exported: Path, pretrained: Lineage, theirs: tuple[Any, Any], folder: Path
) -> None:
    """Every token of a line masked in turn; a line that is too short is left out."""
    export_checkpoint(pretrained, folder / "other", "bert", None, None)
    words = [*islice(cycle(["ba", "co", "den", "fu", "ba"]), 30)]
    lines = [" ".join(words[at : at + 8]) for at in (0, 3)]
    ids = [theirs[0](line)["input_ids"] for line in lines]
    assert [len(one) for one in ids] == [10, 10], "eight tokens, [CLS] and [SEP]"
    (folder / "lines.txt").write_text("\n".join([lines[0], "ba co", lines[1]]))
    expected = []
    for method in ("mapnet", "bert"):
        model, copies = own_model(pretrained, method), torch.tensor(ids).repeat_interleave(8, 0)
        at = torch.arange(1, 9).repeat(2)
        copies[torch.arange(16), at] = MASK
        logits_NV = our_logits(model, copies, torch.ones_like(copies, dtype=torch.bool))
        logits = logits_NV.unflatten(0, (16, 10))[torch.arange(16), at]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids)[:, 1:9].flatten(), reduction="none")
        expected.append(losses.view(2, 8).mean(1))
    folders = [str(exported), str(folder / "other")]
    command = [sys.executable, "-m", "tests.benchmarks.transformers_loss", *folders, "--masks", "8"]
    done = subprocess.run([*command, "--text", folder / "lines.txt"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["lines"] == 2 and expected[0].mean() != expected[1].mean()
    for name, values in zip(folders, expected, strict=True):
        error = float(values.std()) / math.sqrt(2)
        assert result["loss"][name] == pytest.approx([float(values.mean()), error], abs=2e-4)
    assert result["minus_first"][folders[1]][0] == pytest.approx(float((expected[1] - expected[0]).mean()), abs=2e-4)


def test_model_card_has_facts_and_lists_the_differences(
    exported: Path, pretrained: Lineage, theirs: tuple[Any, Any]
) -> None:
    card = (exported / "README.md").read_text()
    for text in ("mapnet at step 10", pretrained.corpus.fingerprint, "Not fine-tuned yet", "torch"):
        assert text in card
    assert "`etc. [MASK]`\n  is always `etc . [MASK]`" in card
    tokenizer = theirs[0]
    assert tokenizer("ba. [MASK]")["input_ids"] == tokenizer("ba . [MASK]")["input_ids"]
    assert tokenizer("ba. co")["input_ids"] != tokenizer("ba . co")["input_ids"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", "", {}),
        ("CC-BY-SA-4.0", "", {"license": "cc-by-sa-4.0"}),
        ("public domain", "", {"license": "other", "license_name": "public-domain"}),
        ("MIT", "CC BY-SA", {"license": "other", "license_name": "cc-by-sa-and-mit"}),
    ],
)
def test_the_card_has_licence_and_language_of_the_sources(
    first: str, second: str, expected: dict[str, str], pretrained: Lineage, folder: Path, tmp_path: Path
) -> None:
    """They change no result."""
    config = pretrained.config
    books, hub = config.corpus.sources[0], Source(kind="dataset", path="hub:wikimedia/wikipedia@main", licence=second)
    sources = (books.model_copy(update={"licence": first, "language": "en"}), hub)
    corpus = config.corpus.model_copy(update={"sources": sources})
    row = export_checkpoint(pretrained, tmp_path / "out", "bert", None, None)
    lineage = Lineage(config.model_copy(update={"corpus": corpus}), pretrained.artifacts)
    lineage.corpus = pretrained.corpus
    manifest = pretrained.artifacts.read(pretrained.manifest, CorpusManifest)
    (tmp_path / "README.md").write_text(model_card(lineage, row, manifest))
    data = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert {key: data[key] for key in ("license", "license_name") if key in data} == expected
    assert (data["language"], data["datasets"]) == (["en"], ["wikimedia/wikipedia"])
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "fill-mask") and "base_model" not in data
    operational = books.model_copy(update={"licence": first, "language": "en"})
    assert operational.results_view() == books.results_view()


def test_export_needs_no_glue_data(pretrained: Lineage, folder: Path) -> None:
    config = user_config(folder, "finetune.data=nowhere")
    export_checkpoint(Lineage(config, pretrained.artifacts), folder / "without glue", "bert", None, None)
    assert "Not fine-tuned yet" in (folder / "without glue" / "README.md").read_text()


def test_model_card_has_scores_after_fine_tuning(pretrained: Lineage, folder: Path) -> None:
    config = user_config(
        folder,
        'methods=["bert"]',
        'finetune.tasks=["RTE","MNLI"]',
        "finetune.seeds=[1,2]",
        "finetune.batch_sizes=[4,8]",
    )
    lineage = Lineage(config, pretrained.artifacts)
    run(lineage, "finetune-glue")
    row = export_checkpoint(lineage, folder / "scored", None, 1, 4)
    assert row.step == 4
    card = (folder / "scored" / "README.md").read_text()
    table = build(lineage).tables["table3"]
    (ours,) = (line for line in table.rows if (line[0].text, line[1].text) == ("BERT", "4"))
    data = ModelCard.load(folder / "scored" / "README.md").data
    results = {(result.dataset_name, result.dataset_split): result for result in data.eval_results}
    mnli = results["GLUE MNLI", "validation_mismatched"]
    assert (mnli.dataset_type, mnli.dataset_config, mnli.metric_type) == ("nyu-mll/glue", "mnli", "accuracy")
    assert results["held-out documents of the corpus", None].metric_value == pytest.approx(
        row.validation_loss, abs=1e-4
    )
    assert 100 * mnli.metric_value == pytest.approx(float(ours[-1].text.split()[0].rstrip("‡§")), abs=0.01)
    assert len(results) == 4
    found = re.findall(r"\| (?:RTE|MNLI-m|MNLI-mm) \| accuracy(?:-mm)? \| (\d+\.\d\d) \|", card)
    assert found == [cell.text.split()[0].rstrip("‡§") for cell in ours[-3:]], "same as in the report"
