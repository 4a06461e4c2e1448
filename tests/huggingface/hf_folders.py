"""Small Hugging Face BERT folders, saved with `transformers`."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.huggingface.conftest import transformers
from tests.prepare_corpus.corpora import prose

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 24,
}  # fmt: skip
SPECIALS = ("[PAD]", "[unused0]", "[MASK]", "[SEP]", "[UNK]", "[CLS]")
"""Special tokens, in a different order from mapnet's."""


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
