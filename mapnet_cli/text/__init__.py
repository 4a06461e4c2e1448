"""Text to token ids: Moses normalisation and tokenisation, BPE, token shards, special tokens."""

# fmt: off
# isort: off
from mapnet_cli.text.bpe import (
    SPACE, TOKENS_PER_WORD, encode_lines, load_tokenizer, train_tokenizer, verified_tokenizer, without_long_words,
    word_part,
)
from mapnet_cli.text.moses_rules import moses_normalizer
from mapnet_cli.text.normalise import normalise_text, prepare_line, word_tokeniser
from mapnet_cli.text.python_docs import Document, harvest, paragraphs
from mapnet_cli.text.shards import Sequences, open_shards, padded, shard_files, writing_shard
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, FUNCTION_WORDS, MASK, PAD, SEP, SPECIALS, UNK, stem
