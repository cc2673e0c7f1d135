"""Reads from a model's configuration which task its head is for, and what its numbers mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.engines.base import PAIRED, Activation, Task
from app.engines.tokenizer import read_json
from app.errors import EngineError

# How a class of transformers ends → the task, by the Hub's names. ModernBERT, Qwen2 and others name
# the weights of several heads alike, so that the wrong one loads: only the class tells them apart.
HEADS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
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
ENTAILMENT = "entail"  # how a label begins, in any case
# By task: what PEFT calls it, and for what its head was trained.
ADAPTER_TASKS: Mapping[str, tuple[str, str]] = {
    Task.CLASSIFICATION: ("SEQ_CLS", "to classify texts"),
    Task.NER: ("TOKEN_CLS", "to label tokens"),
    Task.RANKING: ("SEQ_CLS", "to rank pairs of texts"),
    Task.ZERO_SHOT: ("SEQ_CLS", "on natural language inference (NLI)"),
}


def refuse_other_head(
    folder: Path, adapter: Path | None, classifiers: Sequence[str], *, task: str
) -> None:
    """Check that a folder, or its adapter, is for classifying texts, pairs or tokens.

    Args:
        folder: of the model, with config.json.
        adapter: of a PEFT adapter; one that brings a head of its own replaces the model's.
        classifiers: classes of transformers that do the task.
        task: under which it is to be served.

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
            f" was trained {ADAPTER_TASKS[task][1]}"
        )
    if config.get("attention_type") == "block_sparse":
        raise EngineError(
            f"{file}: attention_type block_sparse changes to full attention for good at the first"
            ' short text, so that answers depend on earlier ones; set "original_full"'
        )


def refuse_other_image_head(folder: Path, classifiers: Sequence[str]) -> None:
    """Check that a folder is for classifying images.

    Args:
        folder: of the model, with config.json.
        classifiers: classes of transformers that classify images.

    Raises:
        EngineError: it is for something else.

    """
    file = folder / "config.json"
    architectures = read_json(file).get("architectures") or []
    if architectures and not set(architectures) & set(classifiers):
        raise EngineError(
            f"{file}: architectures says {architectures[0]}, which doesn't classify images; serve a"
            " model whose head was trained to classify images"
        )


def check_outputs(folder: Path, config: Any, *, task: str) -> None:
    """Check that the head has as many numbers as the task needs.

    Args:
        folder: of the model.
        config: the model's, as transformers loaded it.
        task: under which it is to be served.

    Raises:
        EngineError: it hasn't; the message names the task that it is for.

    """
    file, count = folder / "config.json", config.num_labels
    if task == Task.RANKING and count != 1:
        raise EngineError(
            f"{file}: id2label names {count} labels, and a model for {task} has one number for a"
            f' pair; serve it with task = "{Task.CLASSIFICATION}", and give it `text_pair`'
        )
    mark = cross_encoder_mark(folder)
    if task == Task.CLASSIFICATION and mark and count == 1:
        raise EngineError(
            f"{folder}: {mark} marks a cross-encoder of one number, which is for {Task.RANKING}:"
            f' serve it with task = "{Task.RANKING}"'
        )


def entailment_of(folder: Path, config: Any, *, task: str) -> int | None:
    """Return which label says that a pair's second text follows from its first.

    As transformers' zero-shot-classification pipeline finds it, but for its guess where there is
    none. None for other tasks.

    Raises:
        EngineError: no label says so, or there is nothing else that it could be.

    """
    if task != Task.ZERO_SHOT:
        return None
    named = (int(i) for name, i in config.label2id.items() if name.lower().startswith(ENTAILMENT))
    index = next(named, None)
    if index is None or not 0 <= index < config.num_labels or config.num_labels == 1:
        labels = ", ".join(config.label2id)
        raise EngineError(
            f"{folder / 'config.json'}: label2id: of {labels} none begins with {ENTAILMENT!r}, or"
            f" there is no other; {task} needs a model that was trained on natural language"
            " inference (NLI); if it was, name its labels in the catalogue, in their order"
        )
    return index


def needs_pairs(folder: Path, *, task: str) -> bool:
    """Say whether a model was trained with pairs of texts, so that a single one is wrong for it."""
    return task in PAIRED or cross_encoder_mark(folder) is not None


def cross_encoder_mark(folder: Path) -> str | None:
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


def _brings_head(adapter: Path, task: str) -> bool:
    """Say whether an adapter has a head for the task.

    Raises:
        EngineError: it was trained for another task.

    """
    file = adapter / "adapter_config.json"
    config = read_json(file)
    own, trained = ADAPTER_TASKS[task]
    if config and config.get("task_type") not in {own, None}:
        raise EngineError(
            f"{file}: task_type is {config['task_type']}, not {own}; {task} needs an"
            f" adapter that was trained {trained}"
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
    names: Any = config.id2label or {}
    labels = [names.get(index) for index in range(config.num_labels)]
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
