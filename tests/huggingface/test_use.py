"""Uses of an import: its tokenizer for a corpus, its weights as initialisation, and a row in the report."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import DamagedError, UsageError
from mapnet_cli.core.records import Checkpoint, CorpusManifest, FinetuneRun, Imported
from mapnet_cli.finetune_glue.classifier import Classifier, encoder_weights
from mapnet_cli.finetune_glue.examples import Examples
from mapnet_cli.finetune_glue.tokenised import tokenise
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.jobs.distributed import ALONE
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.masking.context import CorpusFacts
from mapnet_cli.model.attention import Packing
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.pretrain.held_out_words import token_buckets
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.pretrain.state import init_from
from mapnet_cli.pretrain.validation import validate
from mapnet_cli.report.stage import build
from mapnet_cli.text.bpe import load_tokenizer
from mapnet_cli.text.shards import open_shards
from mapnet_cli.text.words import PAD, SPECIALS
from tests.huggingface.conftest import load_theirs, run, transformers, user_config
from tests.huggingface.hf_folders import ROBERTA_SPECIALS, save_bert, save_roberta, wordpiece
from tests.prepare_corpus.corpora import sentence_lines

MATCHING_IMPORT = (
    "corpus.tokenizer=tiny", "encoder.layers=2", "encoder.hidden=16", "encoder.heads=2", "encoder.ffn=32",
    "encoder.max_length=24", "method.bert.init_from=tiny", 'methods=["bert"]',
)  # fmt: skip


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return save_bert(folder / "tiny")


@pytest.fixture(scope="module")
def imported(theirs: Any, folder: Path) -> tuple[Artifacts, Imported]:
    artifacts = Artifacts(folder / "with import")
    return artifacts, import_folder(artifacts, folder / "tiny", None)[0]


@pytest.fixture(scope="module")
def continued(imported: tuple[Artifacts, Imported], folder: Path) -> Lineage:
    """Trains for one step with a negligible learning rate, so that the weights keep their initial values."""
    config = user_config(
        folder,
        *MATCHING_IMPORT,
        "pretrain.steps=1",
        "pretrain.warmup_steps=0",
        "pretrain.milestones=[1.0]",
        "pretrain.peak_lr=1e-9",
    )
    lineage = Lineage(config, imported[0])
    run(lineage, "prepare-corpus", "pretrain")
    return lineage


def test_corpus_uses_the_imported_tokenizer_and_plain_sentences(
    imported: tuple[Artifacts, Imported], continued: Lineage
) -> None:
    artifacts, row = imported
    manifest = artifacts.read(continued.manifest, CorpusManifest)
    assert (manifest.vocab_size, manifest.problems) == (row.vocab_size, [])
    assert (
        load_tokenizer(artifacts.path(manifest.tokenizer)).to_str()
        == load_tokenizer(artifacts.path(row.tokenizer)).to_str()
    )
    lines = [line for line in sentence_lines(artifacts) if line]
    assert lines
    assert all(line[0].isupper() and line.endswith(".") and not line.endswith(" .") for line in lines)
    tokens = open_shards(artifacts, manifest.train)
    assert len(tokens) == manifest.train_sequences > 0
    assert manifest.unknown_tokens == 0


def test_initial_loss_matches_the_reference_model(
    imported: tuple[Artifacts, Imported], continued: Lineage, theirs: Any
) -> None:
    artifacts, row = imported
    manifest = artifacts.read(continued.manifest, CorpusManifest)
    pieces = load_tokenizer(artifacts.path(row.tokenizer))
    old = torch.tensor([wordpiece().token_to_id(pieces.id_to_token(number)) for number in range(row.vocab_size)])

    def logits_at(tokens_BL: Any, attention_mask_BL: Any, positions_BK: Any, slots_N: Any) -> torch.Tensor:
        mask_BL = torch.ones_like(tokens_BL) if attention_mask_BL is None else attention_mask_BL.long()
        logits_BLV = theirs(input_ids=old[tokens_BL], attention_mask=mask_BL).logits[..., old]
        return logits_BLV.gather(1, positions_BK[..., None].expand(-1, -1, row.vocab_size)).flatten(0, 1)[slots_N]

    reference: Any = SimpleNamespace(
        encoder=SimpleNamespace(
            vocab_size=row.vocab_size, config=continued.config.encoder,
            tokens=SimpleNamespace(num_embeddings=row.vocab_size, weight=None),
        ),
        hidden_at=logits_at, head=lambda logits_NV, _: logits_NV, eval=lambda: None, train=lambda: None,
    )  # fmt: skip
    validation = open_shards(artifacts, manifest.validation)
    groups = token_buckets(CorpusFacts(artifacts, manifest))
    expected = validate(reference, validation, 8, torch.device("cpu"), "float32", ALONE, groups)["validation_loss"]
    made = artifacts.read(f"{continued.pretraining('bert', 1).key}/step1", Checkpoint)
    assert made.validation_loss == pytest.approx(expected, abs=1e-4)


def test_mapnet_training_starts_from_an_import(imported: tuple[Artifacts, Imported], folder: Path) -> None:
    both = (*MATCHING_IMPORT, 'methods=["bert", "mapnet"]', "method.mapnet.init_from=tiny", "proposal.max_length=24")
    lineage = Lineage(user_config(folder, *both), imported[0])
    run(lineage, "prepare-corpus", "pretrain")
    row = imported[0].read(f"{lineage.pretraining('mapnet', 1).key}/step10", Checkpoint)
    assert row.validation_loss is not None and row.validation_loss > 0


def test_model_initialised_from_an_import_can_be_exported(
    imported: tuple[Artifacts, Imported], continued: Lineage, theirs: Any, tmp_path: Path
) -> None:
    export_checkpoint(continued, tmp_path / "out", None, None, None)
    tokenizer, model = load_theirs(tmp_path / "out")
    text = "Ba CO den, (fu)!"  # the imported tokenizer does the preprocessing
    batch = tokenizer(text, return_tensors="pt")
    pieces = load_tokenizer(imported[0].path(imported[1].tokenizer))
    assert batch["input_ids"][0].tolist() == pieces.encode(text).ids
    old = torch.tensor([wordpiece().token_to_id(pieces.id_to_token(number)) for number in range(len(tokenizer))])
    with torch.no_grad():
        expected = theirs(input_ids=old[batch["input_ids"]]).logits[..., old]
        assert torch.allclose(model(**batch).logits, expected, atol=1e-4)
    one, two = tokenizer("ba", "den", return_token_type_ids=True), pieces.encode("ba", "den")
    assert (one["input_ids"], one["token_type_ids"]) == (two.ids, two.type_ids), "the import's layout"
    assert 1 in two.type_ids
    with torch.no_grad():
        assert model(**tokenizer("ba", "den", return_tensors="pt")).logits.isfinite().all()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "started from tiny" in card and ModelCard(card).data.base_model == "tiny"
    assert "The tokenizer is that of the import tiny" in card and "[SEP] [SEP]" not in card


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.layers=1", "set encoder.layers = 2$"),
        ("encoder.ffn=64", "set encoder.ffn = 32$"),
        ("encoder.architecture=modernbert", 'set encoder.architecture = "bert"'),
        ("corpus.tokenizer=", 'set corpus.tokenizer = "tiny"$'),
        ("method.bert.init_from=tinny", "no import 'tinny'.*existing imports: tiny-"),
        ("corpus.tokenizer=tinny", "no import 'tinny'"),
    ],
)
def test_mismatched_initialisation_raises(
    override: str, message: str, imported: tuple[Artifacts, Imported], folder: Path
) -> None:
    lineage = Lineage(user_config(folder, *MATCHING_IMPORT, override), imported[0])
    with pytest.raises(UsageError, match=message):
        Pretrain(lineage).plan(1)


def test_damaged_import_raises_with_a_fix(folder: Path, theirs: Any, artifacts: Artifacts) -> None:
    row = import_folder(artifacts, folder / "tiny", None)[0]
    config = user_config(folder, "methods=[]", 'imports=["tiny"]')
    run(Lineage(config, artifacts), "finetune-glue")
    weights = artifacts.path(row.path) / "tensors.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    model = PretrainingModel(config.encoder, row.vocab_size, None)
    with pytest.raises(DamagedError, match="run `mapnet import-hf` again"):
        init_from(artifacts, row.path, model)
    encoder_weights.cache_clear()
    other = user_config(folder, "methods=[]", 'imports=["tiny"]', "finetune.seeds=[2]")
    with pytest.raises(DamagedError, match="run `mapnet import-hf` again on the folder"):
        run(Lineage(other, artifacts), "finetune-glue")
    assert import_folder(artifacts, folder / "tiny", None)[0] == row, "importing again repairs it"
    run(Lineage(other, artifacts), "finetune-glue")


def test_import_without_methods_is_fine_tuned_and_reported(imported: tuple[Artifacts, Imported], folder: Path) -> None:
    artifacts, row = imported
    lineage = Lineage(user_config(folder, "methods=[]", 'imports=["tiny"]'), artifacts)
    run(lineage, "finetune-glue")
    key = lineage.finetuning(GridRun("tiny", 0, 0, "RTE", 16, 1e-3, 1)).key
    finished = artifacts.read(key, FinetuneRun)
    assert (finished.checkpoint, finished.failure) == (row.fingerprint, "")
    built = build(lineage)
    assert (built.value["missing"], built.next_command) == ({}, "")
    only, *baselines = built.tables["table3"].rows
    assert only[0].text == "tiny"
    assert "Steps" not in built.tables["table3"].columns  # there are none
    best = 100 * max(epoch.metrics["accuracy"] for epoch in finished.epochs)
    assert any(cell.text.startswith(f"{best:.2f}") for cell in only)
    assert [row[0].text for row in baselines] == ["majority", "bag of words", "token overlap"]


def test_pairs_are_encoded_as_in_transformers(imported: tuple[Artifacts, Imported], folder: Path) -> None:
    """With the imported tokenizer's layout, truncation and segments, the pooled vector equals BertModel's."""
    artifacts, row = imported
    pairs = [("It rained.", "Rain."), ("A dog.", "Two cats sit on a mat and " + "look " * 30)]
    data, cut = tokenise(Examples(pairs, [0.0, 1.0]), artifacts.path(row.tokenizer), "none", 24)
    vocab_size, state, segment_H = encoder_weights(artifacts.path(row.path))
    assert cut == 1 and segment_H is not None and segment_H.any()
    model = Classifier(Transformer(**row.encoder), vocab_size, 2, Finetune(), segment_H).eval()
    model.encoder.load_state_dict(state)
    model.head = torch.nn.Identity()
    with transformers() as library, torch.no_grad():
        reference = library.BertForMaskedLM.from_pretrained(folder / "tiny").bert.eval()
        tokenizer = library.AutoTokenizer.from_pretrained(folder / "tiny")
        for n, pair in enumerate(pairs):
            options = {"return_token_type_ids": True, "return_tensors": "pt"}
            inputs = tokenizer(*pair, truncation="longest_first", max_length=24, padding=False, **options)
            theirs_H = reference(**inputs).last_hidden_state[0, 0]
            tokens_BL = torch.from_numpy(data.batch(np.array([n])))
            packing = Packing.of(tokens_BL != PAD)
            second_T = packing.position_T >= data.second[n]
            assert torch.allclose(model(tokens_BL[0], packing, second_T)[0], theirs_H, atol=1e-5)
            assert not torch.allclose(model(tokens_BL[0], packing, torch.zeros_like(second_T))[0], theirs_H, atol=1e-3)


def test_import_is_a_row_next_to_the_methods(imported: tuple[Artifacts, Imported], folder: Path) -> None:
    artifacts, _ = imported
    combined = Lineage(user_config(folder, 'methods=["bert"]', 'imports=["tiny"]'), artifacts)
    run(combined, "prepare-corpus", "pretrain", "finetune-glue")
    built = build(combined)
    assert built.value["missing"] == {}
    rows = {row[0].text: row for row in built.tables["table3"].rows}
    assert list(rows)[:2] == ["BERT", "tiny"]
    assert rows["tiny"][1].text == "-"
    assert any(note.startswith("tiny: imported") for note in built.notes)
    alone = Lineage(user_config(folder, "methods=[]", 'imports=["tiny"]'), artifacts)
    assert alone.task("RTE", "tiny") == combined.task("RTE", "tiny") != combined.task("RTE")


def test_training_that_starts_from_a_roberta_is_exported_with_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "a")
    theirs = save_roberta(tmp_path / "tiny")
    import_folder(artifacts, tmp_path / "tiny", None)
    wrong = user_config(folder, *MATCHING_IMPORT)
    with pytest.raises(UsageError, match=r"set encoder\.norm_eps = 1e-05$"):
        Pretrain(Lineage(wrong, artifacts)).plan(1)
    config = user_config(
        folder, *MATCHING_IMPORT, "encoder.norm_eps=1e-5", "pretrain.steps=1", "pretrain.warmup_steps=0",
        "pretrain.milestones=[1.0]",
        "pretrain.peak_lr=1e-9",
    )  # fmt: skip
    lineage = Lineage(config, artifacts)
    run(lineage, "prepare-corpus", "pretrain")
    export_checkpoint(lineage, tmp_path / "out", None, None, None)
    tokenizer, model = load_theirs(tmp_path / "out")
    with transformers() as library:
        original = library.AutoTokenizer.from_pretrained(tmp_path / "tiny")
    names = dict(zip(SPECIALS, ROBERTA_SPECIALS, strict=True))
    old = [original.get_vocab()[names.get(token, token)]
           for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]  # fmt: skip
    batch, expected = tokenizer("Ba co", "abde", return_tensors="pt"), original("Ba co", "abde")["input_ids"]
    assert [old[number] for number in batch["input_ids"][0]] == expected
    with torch.no_grad():
        logits_LV = theirs(input_ids=torch.tensor([expected])).logits[0][:, old]
        assert torch.allclose(model(**batch).logits[0], logits_LV, atol=1e-4)


def test_import_names_are_resolved(imported: tuple[Artifacts, Imported], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bert is a method's name"):
        resolve("demo", None, ['imports=["bert"]'], {})
    with pytest.raises(UsageError, match="must not contain duplicates"):
        resolve("demo", None, ['imports=["a", "a"]'], {})
    artifacts = Artifacts(tmp_path)
    first = import_folder(artifacts, folder / "tiny", None)[0]
    save_bert(tmp_path / "other", num_hidden_layers=1)
    second = import_folder(artifacts, tmp_path / "other", "tiny")[0]
    config = user_config(folder, "corpus.tokenizer=tiny")
    with pytest.raises(UsageError, match="several imports are called 'tiny': choose one of tiny-"):
        _ = Lineage(config, artifacts).corpus
    named = [user_config(folder, f"corpus.tokenizer={row.path.removeprefix('import/')}") for row in (first, second)]
    assert len({Lineage(config, artifacts).corpus.fingerprint for config in named}) == 1, "both have the same tokenizer"
    starts = [f"method.bert.init_from={row.path.removeprefix('import/')}" for row in (first, second)]
    prints = {Lineage(user_config(folder, start), artifacts).pretraining("bert", 1).fingerprint for start in starts}
    assert len(prints) == 2


def test_import_commands(folder: Path, tmp_path: Path, theirs: Any) -> None:
    from tests.e2e.test_cli import invoke

    root = str(tmp_path / "a")
    code, out, err = invoke("import-hf", str(folder / "tiny"), "--name", "mine", "--artifacts", root, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["name"] == "mine"
    code, out, err = invoke("import-hf", str(tmp_path / "nowhere"), "--artifacts", root)
    assert (code, out) == (3, "")
    assert "is not a folder: pass one written by save_pretrained" in err
    alone = ("--artifacts", root, "--set", "methods=[]", "--set", "imports=['mine']")
    code, out, err = invoke("run", "--dry-run", *alone)
    assert (code, err) == (0, "")
    assert " 0 runs to run" in out
    assert invoke("status", *alone)[0] == 0
    code, _, err = invoke("export", str(tmp_path / "out"), *alone)
    assert (code, "imports only" in err) == (2, True)
    code, out, err = invoke("export", str(tmp_path / "out"), "--method", "bert", "--artifacts", root)
    assert (code, out) == (2, "")
    assert "mapnet pretrain" in err
