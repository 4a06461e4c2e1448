"""Small Hugging Face BERT folders, saved with `transformers`."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.huggingface.conftest import transformers
from tests.prepare_corpus.corpora import prose

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 24,
}  # fmt: skip
SPECIALS = ("[PAD]", "[unused0]", "[MASK]", "[SEP]", "[UNK]", "[CLS]")
"""Special tokens, in a different order from mapnet's."""
ROBERTA_SPECIALS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
"""RoBERTa's special tokens, in mapnet's order."""


def wordpiece() -> Tokenizer:
    """Returns an uncased BERT tokenizer with 160 tokens, with truncation and padding enabled."""
    return Tokenizer.from_str(_wordpiece())


@cache  # retraining may break ties differently
def _wordpiece() -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=list(SPECIALS), show_progress=False)
    tokenizer.train_from_iterator([prose(n) for n in range(30)], trainer)
    ids = {special: tokenizer.token_to_id(special) for special in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=list(ids.items())
    )
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=9, pad_id=tokenizer.token_to_id("[PAD]"))
    return tokenizer.to_str()


def save_bert(
    folder: Path, architecture: str = "BertForMaskedLM", tokenizer: Tokenizer | None = None, **config: Any
) -> Any:
    """Writes the folder and returns the model, with random noise added to all parameters."""
    tokenizer = tokenizer or wordpiece()
    with transformers() as library:
        settings = SIZES | {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0} | config
        torch.manual_seed(0)
        model = getattr(library, architecture)(library.BertConfig(**settings)).eval()
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        specials = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    return model


def roberta_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns the vocabulary and merges of a byte-level BPE."""
    merges = [("a", "b"), ("Ġ", "a"), ("Ġa", "b"), ("d", "e"), ("Ġ", "b"), ("b", "a"), ("c", "o"), ("Ġ", "co")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *map("".join, merges), "<mask>"]
    return {piece: number for number, piece in enumerate(pieces)}, merges


def roberta(add_prefix_space: bool = False) -> Tokenizer:
    """Returns a RoBERTa tokenizer."""
    vocab, merges = roberta_vocabulary()
    tokenizer = Tokenizer(models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, add_prefix_space)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    return tokenizer


def save_roberta(folder: Path, architecture: str = "RobertaForMaskedLM", **config: Any) -> Any:
    """Writes the folder and returns the model, with random noise added to all parameters."""
    with transformers() as library:
        sizes = SIZES | {"vocab_size": roberta().get_vocab_size(), "max_position_embeddings": 26, "type_vocab_size": 1}
        torch.manual_seed(0)
        model = getattr(library, architecture)(library.RobertaConfig(**sizes | {"layer_norm_eps": 1e-5} | config))
        for parameter in model.eval().parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(folder)
    roberta().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    return model
