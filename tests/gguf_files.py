"""Writes tiny GGUF files of models of transformers, as llama.cpp's own converter names things."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 32
U32, F32, BOOL, TEXT, LIST, I32 = 4, 6, 7, 8, 9, 5
NORMAL, CONTROL = 1, 3  # kinds of tokens
POOLING = {"mean": 1, "cls": 2, "last": 3, "rank": 4}


def write(file: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> Path:
    """Write a file of float32 tensors; values of metadata have the type that Python gives them."""
    head, data = bytearray(), bytearray()
    head += b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _typed(value)
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor, dtype=np.float32)
        head += _text(name) + struct.pack("<I", array.ndim)
        head += struct.pack(f"<{array.ndim}Q", *reversed(array.shape))
        head += struct.pack("<IQ", 0, len(data))
        data += array.tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    file.write_bytes(bytes(head) + bytes(-len(head) % ALIGNMENT) + bytes(data))
    return file


def _text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<Q", len(content)) + content


def _typed(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", LIST, TEXT, len(value)) + b"".join(map(_text, value))
    return struct.pack(f"<IIQ{len(value)}i", LIST, I32, len(value), *value)


def _vocabulary(tokens: Sequence[str], special: Sequence[int]) -> dict[str, Any]:
    kinds = [CONTROL if i in special else NORMAL for i in range(len(tokens))]
    return {"tokenizer.ggml.tokens": list(tokens), "tokenizer.ggml.token_type": kinds}


def _word_piece(token: str) -> str:
    """Return a token of BERT's as llama.cpp has it: words begin with a mark, pieces have none."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"


def write_bert(file: Path, model: Any, words: Sequence[str], *, pooling: str = "") -> Path:
    """Write a BERT with its words; a classifier's head too.

    Args:
        file: to write.
        model: of transformers, `BertModel` or `BertForSequenceClassification`.
        words: of WordPiece, with [PAD] [UNK] [CLS] [SEP] [MASK] in front.
        pooling: "mean", "cls", "last" or "rank"; "": not said.

    """
    config = model.config
    values: dict[str, Any] = {
        "general.architecture": "bert",
        "bert.block_count": config.num_hidden_layers,
        "bert.context_length": config.max_position_embeddings,
        "bert.embedding_length": config.hidden_size,
        "bert.feed_forward_length": config.intermediate_size,
        "bert.attention.head_count": config.num_attention_heads,
        "bert.attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "bert.attention.causal": False,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": config.type_vocab_size,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
        **_vocabulary([_word_piece(word) for word in words], range(5)),
    }
    if pooling:
        values["bert.pooling_type"] = POOLING[pooling]
    names = {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.position_embeddings.weight": "position_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.LayerNorm": "token_embd_norm",
        "pooler.dense": "cls",
        "classifier": "cls.output",
    }
    layer = {
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    }
    return write(
        file, values, _renamed(model, names, layer, "encoder.layer", has_head=pooling == "rank")
    )


def write_qwen3(
    file: Path,
    model: Any,
    tokenizer: Path,
    *,
    pooling: str = "",
    rerank: str = "",
    head: Any = None,
) -> Path:
    """Write a Qwen3 with the byte-level pairs of a tokenizer.json.

    Args:
        file: to write.
        model: of transformers, `Qwen3Model`.
        tokenizer: whose first token ends a text.
        pooling: as of `write_bert`.
        rerank: the prompt of a reranker, with {query} and {document}.
        head: its last layer, (2, width): "yes" before "no".

    """
    config = model.config
    content = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
    words = sorted(content["vocab"], key=content["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["merges"]]
    values: dict[str, Any] = {
        "general.architecture": "qwen3",
        "qwen3.block_count": config.num_hidden_layers,
        "qwen3.context_length": config.max_position_embeddings,
        "qwen3.embedding_length": config.hidden_size,
        "qwen3.feed_forward_length": config.intermediate_size,
        "qwen3.attention.head_count": config.num_attention_heads,
        "qwen3.attention.head_count_kv": config.num_key_value_heads,
        "qwen3.attention.key_length": config.head_dim,
        "qwen3.attention.value_length": config.head_dim,
        "qwen3.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "qwen3.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_eos_token": not rerank,
        "tokenizer.ggml.add_bos_token": False,
        **_vocabulary(words, [0]),
    }
    if pooling:
        values["qwen3.pooling_type"] = POOLING[pooling]
    if rerank:
        values["tokenizer.chat_template.rerank"] = rerank
        values["qwen3.classifier.output_labels"] = ["yes", "no"]
    names = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    layer = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    tensors = _renamed(model, names, layer, "layers", has_head=False)
    if head is not None:
        tensors["cls.output.weight"] = head
    return write(file, values, tensors)


def _renamed(
    model: Any, names: Mapping[str, str], layer: Mapping[str, str], layers: str, *, has_head: bool
) -> dict[str, Any]:
    """Return a model's weights by llama.cpp's names."""
    tensors = {}
    for full, weight in model.state_dict().items():
        name = full.removeprefix("bert.").removeprefix("model.")
        if name.startswith(layers):
            number, _, rest = name.removeprefix(f"{layers}.").partition(".")
            module, _, kind = rest.rpartition(".")
            tensors[f"blk.{number}.{layer[module]}.{kind}"] = weight.float().numpy()
            continue
        module, _, kind = name.rpartition(".")
        new = names.get(name) or (f"{names[module]}.{kind}" if module in names else None)
        if new and (has_head or not new.startswith("cls")):
            tensors[new] = weight.float().numpy()
    return tensors
