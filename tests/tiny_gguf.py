"""Tiny seeded models of transformers as GGUF files, with their tokenisers."""

from pathlib import Path
from typing import Any

import torch
from gguf_files import write_bert, write_qwen3
from tiny import SIZES, TEXTS, WORDS, seeded
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

WINDOW = 48
PIECES = [*WORDS, "##s", "##ing", "play", "cafe"]
BERT = SIZES | {"vocab_size": len(PIECES)}
QWEN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": WINDOW,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
}
TEMPLATE = "query: {query} text: {document} fits:"


def word_pieces() -> Tokenizer:
    """Return BERT's tokeniser of these words."""
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(PIECES[:5])
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(WINDOW)
    return made


def byte_pairs(folder: Path) -> Tokenizer:
    """Return Qwen's kind of tokeniser, whose token 0 ends a text; it is in tokenizer.json."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=300, special_tokens=["<end>"])
    trained.save(str(folder / "tokenizer.json"))
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    made.enable_truncation(WINDOW - 1)  # llama.cpp keeps a place for a token to generate
    return made


def bert() -> Any:
    """Return an encoder."""
    return seeded("BertModel", "BertConfig", **BERT)


def qwen(tokenizer: Tokenizer) -> Any:
    """Return a decoder of a tokeniser's words."""
    return seeded("Qwen3Model", "Qwen3Config", **QWEN | {"vocab_size": tokenizer.get_vocab_size()})


def write_embedder(file: Path) -> Path:
    """Write an embedder of the mean of all tokens."""
    return write_bert(file, bert(), PIECES, pooling="mean")


def write_ranker(file: Path) -> tuple[Path, Any, Tokenizer, Any]:
    """Write a reranker; return its file, model, tokeniser and last layer, (2, width)."""
    tokenizer = byte_pairs(file.parent)
    model = qwen(tokenizer)
    head = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    words = file.parent / "tokenizer.json"
    write_qwen3(file, model, words, pooling="rank", rerank=TEMPLATE, head=head.numpy())
    return file, model, tokenizer, head
