"""The architectures of the suite: a new one is a line of ARCHITECTURES."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny import SIZES, WORDS, edit, word_tokenizer
from tiny_tokenizers import BYTE_SPECIAL, byte_pairs, pieces

WINDOW = 40  # what the tokenizers say; the models run 48, RoBERTa and its kin 46
WORD_IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BYTE_IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
# Two layers, 32 wide; small enough weights that a third digit of an embedding's half precision
# isn't blown up into a second digit of the score.
COMMON: Mapping[str, Any] = {
    **SIZES,
    "initializer_range": 0.2,
    "num_key_value_heads": 4,
    "cls_token_id": 2,
    "sep_token_id": 3,
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the model and the tokenizer of one are made.

    Args:
        fields: of its configuration, beside the common ones; None takes a common one away.
        tokens: "words" (a tokenizer.json of words), "wordpiece" (vocab.txt), "bytes" (vocab.json
            and merges.txt), or the name of the folder's sentencepiece file.

    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    tokens: str = "words"

    def config(self) -> dict[str, Any]:
        """Return the fields of a model's configuration."""
        sizes = {"words": len(WORDS), "wordpiece": len(WORDS), "bytes": 300}
        ids = BYTE_IDS if self.tokens == "bytes" else WORD_IDS
        given = dict(COMMON) | ids | {"vocab_size": sizes.get(self.tokens, 100)} | dict(self.fields)
        return {name: value for name, value in given.items() if value is not None}

    def write_tokens(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        if self.tokens == "words":
            word_tokenizer(model_max_length=WINDOW).save_pretrained(folder)
            return
        if self.tokens == "wordpiece":
            (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
        elif self.tokens == "bytes":
            byte_pairs(folder)
        else:
            kind = "bpe" if self.tokens == "tokenizer.model" else "unigram"
            special = ["[CLS]", "[SEP]", "[MASK]", "<pad>", "<cls>", "<sep>"]
            content = pieces(model_type=kind, user_defined_symbols=special)
            (folder / self.tokens).write_bytes(content)
        padless = self.tokens in {"bytes", "tokenizer.model"}  # not every class of these names one
        pad = {"pad_token": "<pad>"} if padless else {}
        edit(folder / "tokenizer_config.json", model_max_length=WINDOW, **pad)


assert len(BYTE_SPECIAL) > max(BYTE_IDS.values())
BART = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "init_std": 0.2, "decoder_start_token_id": 3}  # fmt: skip
# 100 more rows than others: T5's tokenizer adds as many tokens.
T5 = {
    "vocab_size": 200,
    "d_kv": 8,
    "d_ff": 64,
    "decoder_start_token_id": 0,
    "max_position_embeddings": None,
}
SPM = "sentencepiece.bpe.model"

# By the beginning of the names of their classes.
ARCHITECTURES: Mapping[str, Architecture] = {
    "Albert": Architecture({"embedding_size": 16}, "spiece.model"),
    "Bart": Architecture(BART, "bytes"),
    "Bert": Architecture(tokens="wordpiece"),
    "BigBird": Architecture({"attention_type": "original_full"}, "spiece.model"),
    "Bloom": Architecture(),
    "CTRL": Architecture(),
    "Camembert": Architecture(tokens=SPM),
    "ConvBert": Architecture({"embedding_size": 32}, "wordpiece"),
    "Data2VecText": Architecture(tokens="bytes"),
    "Deberta": Architecture(),
    "DebertaV2": Architecture(
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, "spm.model"
    ),
    "DistilBert": Architecture({"dim": 32, "hidden_dim": 64}, "wordpiece"),
    "Electra": Architecture({"embedding_size": 16}, "wordpiece"),
    "Ernie": Architecture(tokens="wordpiece"),
    "Esm": Architecture({"position_embedding_type": "rotary"}),
    "EuroBert": Architecture(),
    "FNet": Architecture(tokens="spiece.model"),
    "Falcon": Architecture(),
    "Flaubert": Architecture({"emb_dim": 32}),
    "Funnel": Architecture(
        {"d_model": 32, "d_head": 8, "d_inner": 64, "block_sizes": [2],
         "num_hidden_layers": None}
    ),
    "GPT2": Architecture(tokens="bytes"),
    "GPTBigCode": Architecture(),
    "GPTJ": Architecture({"rotary_dim": 4}, "bytes"),
    "GPTNeo": Architecture({"attention_types": [[["global", "local"], 1]]}, "bytes"),
    "GPTNeoX": Architecture(),
    "Gemma": Architecture({"head_dim": 8}),
    "Gemma2": Architecture({"head_dim": 8}),
    "Gemma3Text": Architecture({"head_dim": 8}),
    "Gte": Architecture(),
    "IBert": Architecture(tokens="bytes"),
    "JinaEmbeddingsV3": Architecture(),
    "LayoutLM": Architecture(tokens="wordpiece"),
    "Llama": Architecture(tokens="tokenizer.model"),
    "Longformer": Architecture({"attention_window": 8}, "bytes"),
    "MBart": Architecture(BART),
    "MPNet": Architecture({"pad_token_id": 1}),
    "MT5": Architecture(T5),
    "MegatronBert": Architecture(tokens="wordpiece"),
    "Mistral": Architecture(),
    "Mixtral": Architecture(),
    "MobileBert": Architecture(
        {"embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32}, "wordpiece"
    ),
    "ModernBert": Architecture(),
    "Mpt": Architecture(),
    "NomicBert": Architecture(tokens="wordpiece"),
    "Nystromformer": Architecture({"num_landmarks": 4, "segment_means_seq_len": 40}),
    "OPT": Architecture({"word_embed_proj_dim": 32, "ffn_dim": 64}, "bytes"),
    "Olmo": Architecture(),
    "OpenAIGPT": Architecture(),
    "Phi": Architecture(),
    "Phi3": Architecture(),
    "Qwen2": Architecture(tokens="bytes"),
    "Qwen3": Architecture({"head_dim": 8}),
    "RemBert": Architecture({"input_embedding_size": 16, "output_embedding_size": 32}),
    "RoFormer": Architecture({"embedding_size": 32}),
    "Roberta": Architecture(tokens="bytes"),
    "RobertaPreLayerNorm": Architecture(tokens="bytes"),
    "SmolLM3": Architecture(),
    "SqueezeBert": Architecture({"embedding_size": 32}, "wordpiece"),
    "StableLm": Architecture(),
    "Starcoder2": Architecture(),
    "T5": Architecture(T5 | {"eos_token_id": 2}, "spiece.model"),
    "UMT5": Architecture(T5),
    "XLM": Architecture({"emb_dim": 32}),
    "XLMRoberta": Architecture(tokens=SPM),
    "XLMRobertaXL": Architecture(),
    "XLNet": Architecture(
        {"d_inner": 64, "d_head": 8, "max_position_embeddings": None, "pad_token_id": 5},
        "spiece.model",
    ),
    "Xmod": Architecture({"languages": ["en"], "default_language": "en"}),
    "Yoso": Architecture(),
}  # fmt: skip
