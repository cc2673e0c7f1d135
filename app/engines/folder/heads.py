"""Reads from a model's configuration which task its head is for, and what its numbers mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.engines.base import Activation, Task
from app.engines.tokenizer import read_json
from app.errors import EngineError

# How a class of transformers ends → the task, by the Hub's names. ModernBERT, Qwen2 and others name
# the weights of several heads alike, so that the wrong one loads: only the class tells them apart.
HEADS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "WithLMHeadModel": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForQuestionAnswering": "question-answering",
    "ForQuestionAnsweringSimple": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForNextSentencePrediction": "next-sentence-prediction",
    "ForPreTraining": "pre-training",
    "DoubleHeadsModel": "multiple-choice",
    "Model": "feature-extraction",
}
# Where sentence-transformers notes how a cross-encoder's logits are read.
CROSS_ENCODER_FIELDS = ("sentence_transformers", "sbert_ce_default_activation_function")
CARD_TAG = "pipeline_tag: text-ranking"
# By task: what PEFT calls it, and what a head for it does.
ADAPTER_TASKS = {
    Task.CLASSIFICATION: ("SEQ_CLS", "classify texts"),
    Task.NER: ("TOKEN_CLS", "label tokens"),
}


def refuse_other_head(
    folder: Path,
    adapter: Path | None,
    classifiers: Sequence[str],
    *,
    task: Task = Task.CLASSIFICATION,
) -> None:
    """Check that a folder, or its adapter, is for classifying texts or tokens.

    Args:
        folder: of the model, with config.json.
        adapter: of a PEFT adapter; one that brings a head of its own replaces the model's.
        classifiers: classes of transformers that do the task.
        task: which of the two it is.

    Raises:
        EngineError: it is for another task; the message names that.

    """
    if adapter is not None and _brings_head(adapter, task):
        return
    file = folder / "config.json"
    config = read_json(file)
    architectures = config.get("architectures") or []
    if architectures and not set(architectures) & set(classifiers):
        raise EngineError(
            f"{file}: architectures says {architectures[0]}, which is for"
            f" {_task(architectures[0])}, not for {task}; serve a model whose head"
            f" was trained to {ADAPTER_TASKS[task][1]}"
        )
    if task is Task.CLASSIFICATION and (mark := _cross_encoder_mark(folder)):
        raise EngineError(
            f"{folder}: {mark} marks a cross-encoder, which is for text-ranking and needs pairs"
            " of texts; text-classification has one text and can't give it its pair"
        )
    if config.get("attention_type") == "block_sparse":
        raise EngineError(
            f"{file}: attention_type block_sparse changes to full attention for good at the first"
            ' short text, so that answers depend on earlier ones; set "original_full"'
        )


def _cross_encoder_mark(folder: Path) -> str | None:
    """Return what says that a folder is a cross-encoder; None where nothing does.

    sentence-transformers has written it in three places in turn, the last of them the model's card.
    """
    config = read_json(folder / "config.json")
    for field in CROSS_ENCODER_FIELDS:
        if field in config:
            return f"config.json: {field}"
    if read_json(folder / "config_sentence_transformers.json").get("model_type") == "CrossEncoder":
        return "config_sentence_transformers.json: model_type"
    card = folder / "README.md"
    if card.is_file():
        _, mark, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
        if mark and CARD_TAG in rest.partition("\n---")[0].splitlines():
            return f"README.md: {CARD_TAG}"
    return None


def _brings_head(adapter: Path, task: Task) -> bool:
    """Say whether an adapter has a head for the task.

    Raises:
        EngineError: it was trained for another task.

    """
    file = adapter / "adapter_config.json"
    config = read_json(file)
    own, does = ADAPTER_TASKS[task]
    if config and config.get("task_type") not in {own, None}:
        raise EngineError(
            f"{file}: task_type is {config['task_type']}, not {own}; {task} needs an"
            f" adapter that was trained to {does}"
        )
    return not config or bool(config.get("modules_to_save"))  # the merge reports a missing file


def _task(architecture: str) -> str:
    """Return the task of a class of transformers by how its name ends, the longest ending first."""
    for ending in sorted(HEADS, key=len, reverse=True):
        if architecture.endswith(ending):
            return HEADS[ending]
    return "another task"


def labels_of(config: Any) -> tuple[str, ...]:
    """Return the labels in the order of the head.

    Raises:
        EngineError: `id2label` lacks one, or one isn't text.

    """
    labels = [config.id2label.get(index) for index in range(config.num_labels)]
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise EngineError(
                f"config.json: id2label has no label for output {index} of"
                f" {len(labels)}; number them from 0 without gaps, or name `labels` in the"
                " catalogue"
            )
    return tuple(labels)


def token_labels_of(config: Any) -> tuple[str, ...]:
    """Return the labels of a token classifier in the order of its head.

    Raises:
        EngineError: one is missing, or none has a name of its own: no label would then say that a
            token belongs to nothing, and each would be an entity.

    """
    labels = labels_of(config)
    if all(label == f"LABEL_{index}" for index, label in enumerate(labels)):
        raise EngineError(
            f"config.json: id2label has no names, only LABEL_0 to LABEL_{len(labels) - 1}; name"
            " `labels` in the catalogue, with O for tokens that belong to no entity"
        )
    return labels


def activation_of(config: Any) -> Activation:
    """Return what transformers' text-classification pipeline applies to the logits."""
    if config.problem_type == "regression":
        return Activation.NONE
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return Activation.SIGMOID
    return Activation.SOFTMAX
