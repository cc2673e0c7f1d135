"""Windows and padding are tried at load: a text is answered in a batch as it is alone."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import (
    SIZES,
    TEXTS,
    alone,
    bert,
    on_torch,
    pipeline_rows,
    request_for,
    save,
    seeded,
    together,
    word_tokenizer,
)

from app.engines.base import Encoded, FloatArray
from app.engines.loader import load_best
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import load_reference, prepare
from app.engines.padding import choose_padding
from app.engines.tokenizer import Padding
from app.engines.torch import TorchClassifier
from app.engines.window import runnable_window
from app.errors import EngineError

LLAMA = SIZES | {"num_key_value_heads": 2}
GPT2 = {"vocab_size": SIZES["vocab_size"], "n_embd": 32, "n_layer": 2, "n_head": 4,
        "n_positions": 48, "initializer_range": 0.3, "num_labels": 3}  # fmt: skip
BART = {"vocab_size": SIZES["vocab_size"], "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "max_position_embeddings": 48, "init_std": 0.3, "pad_token_id": 0,
        "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3,
        "num_labels": 3}  # fmt: skip
NO_PAD = {"pad_token_id": None}
KINDS: dict[str, tuple[str, dict[str, Any], Padding]] = {
    "decoder": ("Llama", LLAMA, Padding.RIGHT),
    "decoder without a pad token": ("Llama", LLAMA | NO_PAD, Padding.NONE),
    "gpt2 without a pad token": ("GPT2", GPT2 | NO_PAD, Padding.NONE),
    "a pad token beyond the table": ("GPT2", GPT2 | {"pad_token_id": 9999}, Padding.NONE),
    "mixes all tokens": (
        "FNet",
        {k: v for k, v in SIZES.items() if "heads" not in k},
        Padding.NONE,
    ),
    "pools at the end token": ("Bart", BART, Padding.NONE),
}


def make(folder: Path, family: str, fields: dict[str, Any], **tokenizer: Any) -> Path:
    model = seeded(f"{family}ForSequenceClassification", f"{family}Config", **fields)
    return save(folder, model, word_tokenizer(**tokenizer))


@pytest.mark.parametrize(("family", "fields", "padding"), KINDS.values(), ids=KINDS)
def test_a_text_is_answered_as_by_the_pipeline_alone_and_in_a_batch(
    tmp_path: Path, family: str, fields: dict[str, Any], padding: Padding
) -> None:
    engine = on_torch(make(tmp_path, family, fields))
    assert engine.encoder.rules.padding is padding
    expected = pipeline_rows(tmp_path, TEXTS, window=engine.max_tokens)
    np.testing.assert_allclose(alone(engine, TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(together(engine, TEXTS), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.05, "the texts have to differ"


def test_openvino_runs_what_can_t_be_padded_text_by_text(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "GPT2", GPT2 | NO_PAD | {"initializer_range": 0.15})
    request = request_for(folder, engine="openvino")
    engine = load(request, prepare=lambda given: prepare(given, load_reference))
    expected = pipeline_rows(folder, TEXTS, window=engine.max_tokens)
    np.testing.assert_allclose(alone(engine, TEXTS), expected, atol=0.02)
    np.testing.assert_allclose(together(engine, TEXTS), alone(engine, TEXTS), atol=1e-6)


def test_torch_is_tried_too_where_a_conversion_failed(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "GPT2", GPT2 | NO_PAD)
    (tmp_path / "converted").write_text("a file where the folder should be")
    engine = load_best(request_for(folder, engine="auto"), has_gpu=lambda: False)
    assert isinstance(engine, TorchClassifier)
    assert engine.encoder.rules.padding is Padding.NONE
    np.testing.assert_allclose(together(engine, TEXTS), alone(engine, TEXTS), atol=1e-5)


WINDOWS = {
    "counts from 0": ("Bert", {}, 48),
    "from the pad token's id + 1": ("Roberta", {"pad_token_id": 1}, 46),
    "mpnet": ("MPNet", {"pad_token_id": 1}, 46),
    "data2vec": ("Data2VecText", {"pad_token_id": 1}, 46),
    "pad token 0": ("Roberta", {}, 47),
}


@pytest.mark.parametrize(("family", "fields", "window"), WINDOWS.values(), ids=WINDOWS)
def test_the_window_is_what_the_model_really_runs(
    tmp_path: Path, family: str, fields: dict[str, Any], window: int
) -> None:
    engine = on_torch(make(tmp_path, family, SIZES | fields))
    assert engine.max_tokens == window
    (item,) = engine.encode(["the cat was good " * 40])
    assert (item.cost, item.is_truncated) == (window, True)
    assert np.isfinite(engine.classify([item])).all()


def test_files_that_say_more_than_the_model_runs_are_not_believed(tmp_path: Path) -> None:
    folder = make(tmp_path, "GPT2", GPT2 | {"pad_token_id": 0}, model_max_length=4096)
    weights = load_file(folder / "model.safetensors")
    assert on_torch(folder).max_tokens == 48
    assert weights["transformer.wpe.weight"].shape[0] == 48


def test_a_try_of_the_window_ends_before_the_second_layer(tmp_path: Path) -> None:
    engine = on_torch(make(tmp_path, "Bert", SIZES | {"num_hidden_layers": 4}))
    calls: list[int] = []
    for index, layer in enumerate(engine.module.bert.encoder.layer):
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))
    assert runnable_window(engine.module, engine.encoder) == 48
    assert calls == [0]


def test_answers_that_are_no_numbers_are_refused_at_load(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match="answers aren't numbers"):
        on_torch(folder)


def test_a_model_that_answers_now_so_now_so_is_refused() -> None:
    calls = itertools.count(1)

    def run(items: Any, _padding: Padding) -> FloatArray:
        return np.full((len(items), 2), next(calls), dtype=np.float32)

    items = [Encoded(token_ids=[1] * n, is_truncated=False) for n in (2, 5)]
    with pytest.raises(EngineError, match="doesn't answer a text twice alike"):
        choose_padding(run, items, most=1e-3)


def test_the_first_way_to_pad_that_changes_no_answer_is_taken() -> None:
    items = [Encoded(token_ids=[1] * n, is_truncated=False) for n in (2, 5)]

    def run(items: Any, padding: Padding) -> FloatArray:
        wrong = len(items) if padding is Padding.RIGHT else 0
        return np.array([[item.cost + wrong] for item in items], dtype=np.float32)

    assert choose_padding(run, items, most=1e-3) is Padding.LEFT
    assert choose_padding(run, items, most=1e-3, first=Padding.NONE) is Padding.NONE
