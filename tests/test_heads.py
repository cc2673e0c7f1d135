"""Heads: the architecture decides the task, the configuration what the numbers mean."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from libraries import cross_encoder
from tiny import (
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

from app.engines.base import Activation, is_regression, needs_pairs
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import load_reference, prepare
from app.errors import EngineError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("heads") / "bert")


@pytest.mark.parametrize(
    ("model", "config", "task"),
    [
        ("ModernBertForTokenClassification", "ModernBertConfig", "token-classification"),
        ("Qwen2ForTokenClassification", "Qwen2Config", "token-classification"),
        ("BertForMaskedLM", "BertConfig", "fill-mask"),
        ("Qwen2ForCausalLM", "Qwen2Config", "text-generation"),
        ("BertForQuestionAnswering", "BertConfig", "question-answering"),
        ("BertForMultipleChoice", "BertConfig", "multiple-choice"),
        ("BertForNextSentencePrediction", "BertConfig", "next-sentence-prediction"),
        ("BertModel", "BertConfig", "feature-extraction"),
    ],
)
def test_a_folder_for_another_task_is_refused_with_its_name(
    tmp_path: Path, model: str, config: str, task: str
) -> None:
    fields = SIZES | {"cls_token_id": 2, "sep_token_id": 3} if "Modern" in config else SIZES
    fields = fields | {"bos_token_id": 2, "eos_token_id": 3}
    save(tmp_path, seeded(model, config, **fields), word_tokenizer())
    with pytest.raises(EngineError) as refused:
        on_torch(tmp_path)
    line = str(refused.value)
    assert line.startswith(f"{tmp_path / 'config.json'}: architectures says {model}, which is for")
    assert f" {task}, not for text-classification" in line
    assert "\n" not in line


IDENTITY = "torch.nn.modules.linear.Identity"
MARKS: dict[str, dict[str, Any]] = {
    "config.json": {"sentence_transformers": {"activation_fn": IDENTITY}},
    " config.json": {"sbert_ce_default_activation_function": IDENTITY},
    "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
}


@pytest.mark.parametrize("mark", MARKS)
def test_a_cross_encoder_needs_pairs_and_one_of_one_number_another_task(
    folder: Path, tmp_path: Path, mark: str
) -> None:
    shutil.copytree(folder, tmp_path / "several")
    edit(tmp_path / "several" / mark.strip(), **MARKS[mark])
    assert needs_pairs(on_torch(tmp_path / "several"))
    assert not needs_pairs(on_torch(folder))
    bert(tmp_path / "one", num_labels=1)
    edit(tmp_path / "one" / mark.strip(), **MARKS[mark])
    with pytest.raises(EngineError, match=rf'{mark.strip()}: .* with task = "text-ranking"'):
        on_torch(tmp_path / "one")


def test_a_cross_encoder_is_known_by_its_card(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    card = tmp_path / "README.md"
    card.write_text("---\ntags:\n- x\n---\n\npipeline_tag: text-ranking\n")
    assert not needs_pairs(on_torch(tmp_path))
    card.write_text("---\ntags:\n- x\npipeline_tag: text-ranking\n---\n\n# A model\n")
    assert needs_pairs(on_torch(tmp_path))


def test_what_sentence_transformers_saves_as_a_cross_encoder_needs_pairs(
    folder: Path, tmp_path: Path
) -> None:
    cross_encoder(folder).save_pretrained(str(tmp_path))
    engine = on_torch(tmp_path)
    assert needs_pairs(engine)
    expected = pipeline_rows(tmp_path, PAIRS, window=engine.max_tokens)
    np.testing.assert_allclose(together(engine, PAIRS), expected, atol=1e-4)


def test_without_architectures_the_weights_decide(tmp_path: Path) -> None:
    bert(tmp_path)
    edit(tmp_path / "config.json", architectures=None)
    assert on_torch(tmp_path).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_an_adapter_for_another_task_is_refused(folder: Path, tmp_path: Path) -> None:
    edit(tmp_path / "adapter_config.json", task_type="TOKEN_CLS")
    with pytest.raises(EngineError, match="task_type is TOKEN_CLS, not SEQ_CLS"):
        on_torch(folder, adapter=tmp_path)


def test_sparse_attention_that_changes_for_good_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "config.json", attention_type="block_sparse")
    with pytest.raises(EngineError, match=r'attention_type block_sparse .* set "original_full"'):
        on_torch(tmp_path)


@pytest.mark.parametrize(
    ("fields", "activation"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, Activation.NONE),
        ({"num_labels": 3, "problem_type": "regression"}, Activation.NONE),
        ({"num_labels": 1}, Activation.SIGMOID),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, Activation.SIGMOID),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, Activation.SOFTMAX),
        ({"num_labels": 2, "function_to_apply": "none"}, Activation.SOFTMAX),
    ],
)
def test_scores_are_what_transformers_pipeline_makes_of_the_logits(
    tmp_path: Path, fields: dict[str, Any], activation: Activation
) -> None:
    engine = on_torch(bert(tmp_path, **fields))
    expected = pipeline_rows(tmp_path, TEXTS, window=engine.max_tokens)
    assert engine.activation is activation
    np.testing.assert_allclose(alone(engine, TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(together(engine, TEXTS), expected, atol=1e-5)


def test_a_regression_has_its_numbers_on_openvino_to_the_third_decimal(tmp_path: Path) -> None:
    sizes = SIZES | {"num_labels": 2, "problem_type": "regression", "initializer_range": 0.1}
    model = seeded("BertForSequenceClassification", "BertConfig", **sizes)
    with torch.no_grad():
        model.classifier.bias[:] = torch.tensor([40.0, -7.5])
    folder = save(tmp_path / "model", model, word_tokenizer())
    request = request_for(folder, engine="openvino")
    engine = load(request, prepare=lambda given: prepare(given, load_reference))
    assert is_regression(engine)
    expected = pipeline_rows(folder, TEXTS, window=engine.max_tokens)
    np.testing.assert_allclose(together(engine, TEXTS), expected, atol=5e-3)
    np.testing.assert_allclose(alone(engine, TEXTS), expected, atol=5e-3)


@pytest.mark.parametrize("named", [{"0": "a", "2": "b", "5": "c"}, {"0": "a", "1": None, "2": "c"}])
def test_labels_with_a_gap_are_refused(tmp_path: Path, named: dict[str, Any]) -> None:
    bert(tmp_path)
    edit(tmp_path / "config.json", id2label=named)
    with pytest.raises(EngineError, match="id2label"):
        on_torch(tmp_path)
