"""Pairs of texts: encoded and cut as transformers does it, alone and in company, on each engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from converted import converted_once
from libraries import cross_encoder
from tiny import (
    NLI,
    PAIRS,
    SIZES,
    TEXTS,
    alone,
    bert,
    edit,
    on_torch,
    pipeline_rows,
    request_for,
    save,
    seeded,
    together,
    word_tokenizer,
)
from tiny_tokenizers import byte_pairs
from zero_shot import hypothesis, zero_shot_rows, zero_shot_scores

from app.engines.base import Activation, Task, needs_pairs, takes_pairs
from app.engines.openvino.agreement import answers, pairs_of
from app.engines.openvino.engine import OpenVinoClassifier
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import load_reference, prepare
from app.engines.torch import TorchClassifier
from app.errors import EngineError, TextTooLongError

IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
SETTINGS = "config_sentence_transformers.json"
ROW = 2e-2  # bfloat16; see tests/conformance
RANKED = (*PAIRS, (TEXTS[2], ""))  # the library reads a pair; pipelines take it for one text
LABELS = ("good", "a cat", "bad film")
TYPED: dict[str, Any] = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}


def typed_bert(folder: Path, **fields: Any) -> Path:
    """Write a BERT that is given token types; its weights are small enough for bfloat16."""
    sizes = SIZES | {"initializer_range": 0.2} | fields
    model = seeded("BertForSequenceClassification", "BertConfig", **sizes)
    return save(folder, model, word_tokenizer(**TYPED, model_max_length=40))


def roberta(folder: Path, **fields: Any) -> Path:
    sizes = SIZES | {"vocab_size": 300, "pad_token_id": 1, "initializer_range": 0.2} | fields
    seeded("RobertaForSequenceClassification", "RobertaConfig", **sizes).save_pretrained(folder)
    byte_pairs(folder)
    edit(folder / "tokenizer_config.json", model_max_length=40, pad_token="<pad>")
    return folder


def on_openvino(folder: Path, **fields: Any) -> OpenVinoClassifier:
    """Convert, once a machine, and load, without the fall back to torch."""
    request = converted_once(request_for(folder, **({"engine": "openvino"} | fields)))
    engine = load(request, prepare=lambda given: prepare(given, load_reference))
    assert isinstance(engine, OpenVinoClassifier)
    return engine


@pytest.mark.parametrize("make", [typed_bert, roberta])
def test_texts_and_pairs_are_answered_as_by_the_pipeline_alone_and_in_company(
    tmp_path: Path, make: Any
) -> None:
    folder = make(tmp_path / "model")
    mixed = [item for both in zip(PAIRS, TEXTS, strict=False) for item in both]
    expected = pipeline_rows(folder, mixed, window=40)
    assert np.ptp(expected, axis=0).max() > 0.05, "the texts have to differ"
    engine = on_torch(folder)
    assert takes_pairs(engine)
    assert not needs_pairs(engine)
    np.testing.assert_allclose(alone(engine, mixed), expected, atol=1e-5)
    np.testing.assert_allclose(together(engine, mixed), expected, atol=1e-4)
    converted = on_openvino(folder)
    assert converted.packing is not None, "these run in rows"
    np.testing.assert_allclose(alone(converted, mixed), expected, atol=ROW)
    np.testing.assert_allclose(together(converted, mixed), expected, atol=ROW)


def test_the_types_of_a_pair_count(tmp_path: Path) -> None:
    engine = on_torch(typed_bert(tmp_path))
    (pair,) = engine.encode([("good film", "bad")])
    assert list(pair.type_ids) == [0, 0, 0, 0, 1, 1]
    assert [len(item.type_ids) for item in engine.encode(["good film"])] == [4]


def test_a_pair_is_cut_as_transformers_cuts_it_and_says_so(tmp_path: Path) -> None:
    folder = typed_bert(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for task, strategy in ((Task.CLASSIFICATION, "longest_first"), (Task.ZERO_SHOT, "only_first")):
        edit(folder / "config.json", **NLI)
        engine = on_torch(folder, task=task)
        pairs = [("good film", "bad"), (TEXTS[4], TEXTS[1]), (TEXTS[1], "bad " * 30)]
        for pair, item in zip(pairs, engine.encode(pairs[:2]), strict=False):
            ids = tokenizer(*pair, truncation=strategy, max_length=40)["input_ids"]
            assert list(item.token_ids) == ids
            assert item.is_truncated is (pair != pairs[0])
        if task is Task.CLASSIFICATION:
            assert engine.encode(pairs[2:])[0].cost == 40


def test_a_second_text_that_fills_the_window_is_refused_where_it_may_not_be_cut(
    tmp_path: Path,
) -> None:
    engine = on_torch(typed_bert(tmp_path, **NLI), task=Task.ZERO_SHOT)
    with pytest.raises(TextTooLongError, match="leaves no room"):
        engine.encode([("good film", "bad " * 38)])
    assert engine.encode([("good film " * 30, "bad " * 36)])[0].cost == 40


def test_a_model_without_types_for_a_second_text_takes_single_ones(tmp_path: Path) -> None:
    folder = typed_bert(tmp_path, type_vocab_size=1)
    engine = on_torch(folder)
    assert not takes_pairs(engine)
    np.testing.assert_allclose(
        together(engine, TEXTS), pipeline_rows(folder, TEXTS, window=40), atol=1e-4
    )
    edit(folder / "config.json", id2label={"0": "a"}, label2id={"a": 0})
    model = seeded(
        "BertForSequenceClassification",
        "BertConfig",
        **SIZES | {"num_labels": 1, "type_vocab_size": 1},
    )
    save(folder, model, word_tokenizer(**TYPED))
    with pytest.raises(EngineError, match="needs pairs of texts, and"):
        on_torch(folder, task=Task.RANKING)


def test_engines_are_compared_on_pairs_too(tmp_path: Path) -> None:
    texts = list(TEXTS[:4])
    engine = on_torch(typed_bert(tmp_path, **NLI))
    expected = [*together(engine, texts), *together(engine, pairs_of(engine, texts))]
    assert len(expected) == 6
    np.testing.assert_allclose(answers(engine, texts), expected, atol=1e-5)
    only = on_torch(tmp_path, task=Task.ZERO_SHOT)
    np.testing.assert_allclose(
        answers(only, texts), together(only, pairs_of(only, texts)), atol=1e-4
    )


@pytest.mark.parametrize("make", [typed_bert, roberta])
@pytest.mark.parametrize("activation", [None, IDENTITY])
def test_a_reranker_scores_as_sentence_transformers_does(
    tmp_path: Path, make: Any, activation: str | None
) -> None:
    folder = make(tmp_path / "model", num_labels=1)
    if activation is not None:
        edit(folder / "config.json", sentence_transformers={"activation_fn": activation})
    library = cross_encoder(folder)
    expected = np.array([library.predict([pair]) for pair in RANKED])
    assert np.ptp(expected) > 0.05, "the pairs have to differ"
    engine = on_torch(folder, task=Task.RANKING)
    assert needs_pairs(engine)
    assert engine.activation is (Activation.LOGITS if activation else Activation.SIGMOID)
    np.testing.assert_allclose(alone(engine, RANKED), expected, atol=1e-5)
    np.testing.assert_allclose(together(engine, RANKED), expected, atol=1e-4)
    converted = on_openvino(folder, task=Task.RANKING)
    size = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(alone(converted, RANKED), expected, atol=ROW * size)
    np.testing.assert_allclose(together(converted, RANKED), expected, atol=ROW * size)


@pytest.mark.parametrize("name", [SIGMOID, IDENTITY])
def test_what_sentence_transformers_saves_is_read_with_its_activation_window_and_case(
    tmp_path: Path, name: str
) -> None:
    made = typed_bert(tmp_path / "made", num_labels=1)
    library = cross_encoder(made)
    folder = tmp_path / "saved"
    library.save_pretrained(str(folder))
    edit(folder / SETTINGS, activation_fn=name)
    edit(folder / "sentence_bert_config.json", max_seq_length=12, do_lower_case=True)
    library = cross_encoder(folder)
    engine = on_torch(folder, task=Task.RANKING)
    assert engine.max_tokens == 12
    np.testing.assert_allclose(together(engine, PAIRS)[:, 0], library.predict(PAIRS), atol=1e-4)


@pytest.mark.parametrize(
    ("file", "fields", "line"),
    [
        (
            SETTINGS,
            {"activation_fn": "torch.nn.modules.activation.Tanh"},
            "activation_fn: '.*Tanh'",
        ),
        (SETTINGS, {"activation_fn": "mine.Sigmoid"}, "activation_fn: 'mine.Sigmoid'"),
        (SETTINGS, {"default_prompt_name": "query"}, "default_prompt_name: 'query'"),
        ("sentence_bert_config.json", {"transformer_task": "text-generation"}, "transformer_task"),
        ("config.json", {"architectures": ["BertForMaskedLM"]}, "fill-mask, not for text-ranking"),
    ],
)
def test_a_cross_encoder_that_is_not_done_here_is_refused_with_field_and_remedy(
    tmp_path: Path, file: str, fields: dict[str, Any], line: str
) -> None:
    made = typed_bert(tmp_path / "made", num_labels=1)
    library = cross_encoder(made)
    library.save_pretrained(str(tmp_path / "saved"))
    edit(tmp_path / "saved" / file, **fields)
    with pytest.raises(EngineError, match=line) as refused:
        on_torch(tmp_path / "saved", task=Task.RANKING)
    assert "\n" not in str(refused.value)


def test_a_second_module_behind_the_transformer_is_refused(tmp_path: Path) -> None:
    made = typed_bert(tmp_path / "made", num_labels=1)
    library = cross_encoder(made)
    library.save_pretrained(str(tmp_path / "saved"))
    modules = tmp_path / "saved" / "modules.json"
    first = modules.read_text().strip()[1:-1]
    dense = '{"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.Dense"}'
    modules.write_text(f"[{first}, {dense}]")
    with pytest.raises(
        EngineError, match=r"modules\.json: a cross-encoder here is one Transformer"
    ):
        on_torch(tmp_path / "saved", task=Task.RANKING)


def test_a_model_of_several_numbers_ranks_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r'names 3 labels, .*task = "text-classification"'):
        on_torch(bert(tmp_path), task=Task.RANKING)


@pytest.mark.parametrize(
    "labels",
    [
        {0: "contradiction", 1: "ENTAILMENT", 2: "neutral"},
        {0: "entailment", 1: "neutral", 2: "contradiction"},
        {0: "not_it", 1: "entailed"},
    ],
    ids=["in the middle", "first", "two"],
)
def test_zero_shot_scores_are_those_of_transformers_pipeline(
    tmp_path: Path, labels: dict[int, str]
) -> None:
    named = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    folder = typed_bert(tmp_path / "model", num_labels=len(labels), **named)
    texts = [*TEXTS, "Café NOËL  我喜欢 🤗"]
    expected = zero_shot_rows(folder, texts, LABELS, window=40)
    pairs = [(text, hypothesis(label)) for text in texts for label in LABELS]
    entailment = next(i for i, n in labels.items() if n.lower().startswith("entail"))
    engines: list[tuple[TorchClassifier | OpenVinoClassifier, float]] = [
        (on_torch(folder, task=Task.ZERO_SHOT), 1e-4),
        (on_openvino(folder, task=Task.ZERO_SHOT), ROW),
    ]
    for engine, most in engines:
        assert engine.entailment == entailment
        for way in (alone, together):
            scores = zero_shot_scores(way(engine, pairs), entailment, count=len(LABELS))
            np.testing.assert_allclose(scores, expected, atol=most)


def test_a_model_without_an_entailment_is_refused_with_its_labels(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"label2id: of LABEL_0, LABEL_1, LABEL_2 none begins"):
        on_torch(bert(tmp_path), task=Task.ZERO_SHOT)
    names = ("contradiction", "neutral", "entailment")
    assert on_torch(tmp_path, task=Task.ZERO_SHOT, labels=names).entailment == 2
