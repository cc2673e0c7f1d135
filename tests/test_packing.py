"""Texts in rows, one behind the other: answered as alone and as by torch, where a model can."""

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converted import converted_once
from test_openvino import prepare_here
from tiny import SIZES, TEXTS, bert, request_for, save, seeded, word_tokenizer
from tiny_embedders import KINDS, embedder, on_torch, save_encoder

from app.engines.base import Encoded, EngineRequest, Task
from app.engines.openvino.baked import bake
from app.engines.openvino.baked import load as load_baked
from app.engines.openvino.conversion import convert, plain_module
from app.engines.openvino.converted import folder_of, read
from app.engines.openvino.engine import PACKING
from app.engines.openvino.loading import load
from app.engines.openvino.packed_graph import choose_packing
from app.engines.openvino.packed_inputs import PackedInputs, pack
from app.engines.openvino.preparation import load_reference
from app.engines.packing import Layout
from app.engines.tokenizer import TextRules
from app.errors import EngineError

CLS = PackedInputs(first_position=0, is_first_enough=True)
WHOLE = PackedInputs(first_position=0, is_first_enough=False)
DISTIL = {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 64, "num_labels": 3,
          "vocab_size": SIZES["vocab_size"], "max_position_embeddings": 48,
          "initializer_range": 0.3}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any], PackedInputs | None]] = {
    "first token": ("Bert", SIZES, CLS),
    "positions behind the pad token": (
        "Roberta",
        SIZES | {"pad_token_id": 1},
        replace(CLS, first_position=2, uncounted_id=1),
    ),
    "without token types": ("DistilBert", DISTIL, CLS),
    "reads the last token": ("Qwen2", SIZES | {"num_key_value_heads": 2}, None),
    "mixes all tokens": ("FNet", {k: v for k, v in SIZES.items() if "heads" not in k}, None),
    "sees neighbours only": (
        "ModernBert",
        SIZES | {"local_attention": 8, "global_attn_every_n_layers": 2},
        None,
    ),
    "convolves": ("ConvBert", SIZES | {"embedding_size": 32}, None),
}


def loaded(request: EngineRequest) -> Any:
    return load(request, prepare=prepare_here)


@pytest.mark.parametrize(("family", "fields", "packing"), FAMILIES.values(), ids=FAMILIES)
def test_a_model_is_packed_only_where_torch_answers_a_row_as_each_text_alone(
    tmp_path: Path, family: str, fields: dict[str, Any], packing: PackedInputs | None
) -> None:
    model = seeded(f"{family}ForSequenceClassification", f"{family}Config", **fields)
    reference = load_reference(request_for(save(tmp_path / "model", model, word_tokenizer())))
    assert choose_packing(reference, plain_module(reference)) == packing


@pytest.mark.parametrize("kind", KINDS)
def test_every_pooling_gathers_its_own_tokens(tmp_path: Path, kind: str) -> None:
    folder = embedder(save_encoder(tmp_path / "encoder"), tmp_path / "model", *KINDS[kind])
    reference = on_torch(folder)
    assert choose_packing(reference, plain_module(reference)) == WHOLE


def test_a_text_s_answer_does_not_depend_on_its_company(tmp_path: Path) -> None:
    request = request_for(bert(tmp_path / "model", initializer_range=0.2), engine="openvino")
    engine = loaded(converted_once(request))
    assert engine.packing == PACKING
    items = engine.encode([text * n for text in TEXTS for n in (1, 2, 3)])
    alone = np.concatenate([engine.classify([item]) for item in items])
    for order in itertools.islice(itertools.permutations(range(len(items))), 0, 4000, 400):
        rows = engine.classify([items[index] for index in order])
        np.testing.assert_allclose(rows, alone[list(order)], atol=0.005)
    assert np.ptp(alone, axis=0).max() > 0.05, "the texts have to differ"


def test_an_entry_can_ask_for_padded_batches_and_both_are_kept(tmp_path: Path) -> None:
    request = converted_once(request_for(bert(tmp_path / "model"), engine="openvino"))
    padded = replace(request, is_packed=False)
    assert loaded(padded).packing is None
    assert loaded(request).packing == PACKING
    assert folder_of(padded) != folder_of(request)
    kept = read(folder_of(request))
    assert kept is not None
    assert kept.packing == CLS


def test_a_packed_graph_that_disagrees_is_converted_anew_for_padded_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_for(bert(tmp_path / "model"), engine="openvino")
    wrong = replace(CLS, first_position=5)
    convert(load_reference(request), folder_of(request), packing=wrong)
    with caplog.at_level(logging.WARNING):
        engine = loaded(request)
    assert engine.packing is None
    assert "packing_refused" in [record.message for record in caplog.records]


def test_a_baked_model_is_packed_and_says_so_where_its_entry_asks_for_another(
    tmp_path: Path,
) -> None:
    request = request_for(bert(tmp_path / "model"), engine="openvino")
    bake(request, tmp_path / "baked")
    baked = replace(request, folder=tmp_path / "baked")
    assert load_baked(baked).packing == PACKING
    with pytest.raises(EngineError, match="packed is baked in"):
        load_baked(replace(baked, is_packed=False))


def test_rows_say_which_text_a_token_belongs_to_and_where_it_stands() -> None:
    batch = [Encoded(token_ids=[2, 7, 3], is_truncated=False, left_out=1),
             Encoded(token_ids=[2, 3], is_truncated=False)]  # fmt: skip
    rules = TextRules(window=9, pad_id=1, leaves_prompt_out=True)
    layout = Layout(rows=[[0, 1]], width=6)
    arrays = pack(batch, layout, rules=rules, inputs=replace(WHOLE, first_position=2))
    assert arrays["input_ids"].tolist() == [[2, 7, 3, 2, 3, 1]]
    assert arrays["position_ids"].tolist() == [[2, 3, 4, 2, 3, 2]]
    assert arrays["segments"].tolist() == [[0, 0, 0, 1, 1, -1]]
    assert arrays["places"].tolist()[:2] == [[0, 1, 2, 0], [3, 4, 0, 0]]
    assert arrays["attention_mask"].tolist()[:2] == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert arrays["pooling_mask"].tolist()[:2] == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert replace(WHOLE, first_position=2, uncounted_id=1).positions([0, 1, 7]).tolist() == [
        2,
        1,
        3,
    ]
    first = pack(batch, layout, rules=rules, inputs=CLS)
    assert first["places"].tolist()[:2] == [[0], [3]]


def test_an_embedder_s_vectors_do_not_depend_on_their_company(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    folder = embedder(encoder, tmp_path / "model", *KINDS["mean_tokens"])
    engine = loaded(converted_once(request_for(folder, engine="openvino", task=Task.EMBEDDING)))
    assert engine.packing == PACKING
    items = engine.encode(TEXTS)
    alone = np.concatenate([engine.embed([item]) for item in items])
    np.testing.assert_allclose(engine.embed(items), alone, atol=0.01)
