"""Tiny vocabularies of the kinds that folders bring, made here."""

import io
from pathlib import Path
from typing import Any

import sentencepiece
from tiny import TEXTS
from tokenizers import ByteLevelBPETokenizer

VOCABULARY = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat The CAT caf ##e ##é was good Good .
    我 喜 我喜 <new> film""".split()  # noqa: SIM905  # strings in quotes read worse
BYTE_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>")


def pieces(**fields: Any) -> bytes:
    """Return a sentencepiece model of a few words."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "The CAT café was Good", "ÀÉ naïve words here"] * 20),
        model_writer=made,
        vocab_size=70,
        hard_vocab_limit=False,
        minloglevel=2,
        **fields,
    )
    return made.getvalue()


def byte_pairs(folder: Path) -> None:
    """Write vocab.json and merges.txt, as GPT-2 and RoBERTa have them."""
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(TEXTS, vocab_size=300, special_tokens=list(BYTE_SPECIAL))
    made.save_model(str(folder))
