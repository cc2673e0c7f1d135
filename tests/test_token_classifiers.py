"""Token classifiers on torch and OpenVINO answer as transformers' pipeline, or are refused."""

import itertools
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from converted import converted_once
from safetensors.torch import load_file, save_file
from test_openvino import prepare_here
from tiny import SIZES, TEXTS, bert, edit, request_for, save, seeded, word_tokenizer
from tiny_tokenizers import byte_pairs, pieces
from tiny_tokens import (
    LABELS,
    NAMED,
    Reference,
    bert_tokens,
    found,
    rows,
    rows_alone,
    tokens_on_torch,
)

from app.engines.base import OpenVinoOptions, Task
from app.engines.openvino.agreement import answers, calibration_texts
from app.engines.openvino.baked import bake
from app.engines.openvino.baked import load as load_baked
from app.engines.openvino.converted import folder_of, options_of, read
from app.engines.openvino.engine import PACKING
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import convert_best, load_reference, settle
from app.engines.openvino.processor import Processor
from app.engines.rows import RowsRefusedError
from app.engines.scores import softmax
from app.engines.token_windows import TokenText, window_cuts
from app.errors import EngineError
from app.services.entities import Aggregation

# What users write: each of these is put between words, and against them.
MARKS = (
    "🤗", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "1️⃣", "❤️", "e\u0301", "n\u0303o", "a\u0308\u0323",
    "Å\u030a", "ﬁ", "ß", "İ", "각", "\u1100\u1161\u11a8", "न\u093f", "ก็", "שָׁ", "لا\u064b", "我喜",
    "\U0001d49c", "𠮷", "\u200b", "\u200d", "\u00a0", "\u00ad", "\ufeff", "\t", "\n", "½", "№", "…",
    "\u2019", "\u202e", "Z\u0351\u0343", "\U0001f9d1\u200d\U0001f4bb", "x\u20e3", "ǅ", "\u0000",
)  # fmt: skip
PATTERNS = ("{} the film", "the {} cat", "good{}film was {}", "not very{}", "{0}{0} bad , {0}dog !")


def written() -> list[str]:
    """Return 200 texts with emoji, combining characters and the like."""
    made = (p.format(m, m) for m, p in itertools.product(MARKS, PATTERNS))
    return [*made, "", "a", "Café NOËL 我喜欢", "e\u0301" * 20, "👍🏽" * 12][:200]


def wordpiece(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*"abcdefghijklmnoprstuvwxyz.,!", "我", "喜", "the", "fil", "##m", "##e", "cat", "ca"]
    words += [*letters, *(f"##{c}" for c in "abdfghijklnoprstuvwxyz"), "🤗", "👍", "न", "\u0301"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)), encoding="utf-8")


def sentencepiece(folder: Path) -> None:
    special = ["[CLS]", "[SEP]", "[MASK]", "<pad>", "<cls>", "<sep>"]
    made = pieces(model_type="unigram", user_defined_symbols=special, byte_fallback=False)
    (folder / "sentencepiece.bpe.model").write_bytes(made)


TOKENIZERS: dict[str, tuple[str, Callable[[Path], None], dict[str, Any]]] = {
    "wordpiece": ("Bert", wordpiece, {}),
    "bytes": ("Roberta", byte_pairs, {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "sentencepiece": ("XLMRoberta", sentencepiece, {"pad_token_id": 1}),
}


@pytest.mark.parametrize(("family", "write", "fields"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_entities_and_their_places_in_200_texts_are_transformers_own(
    tmp_path: Path, family: str, write: Callable[[Path], None], fields: dict[str, Any]
) -> None:
    sizes = {**SIZES, **NAMED, "vocab_size": 320, "max_position_embeddings": 200, **fields}
    model = seeded(f"{family}ForTokenClassification", f"{family}Config", **sizes)
    model.classifier.bias.data[0] -= 3  # fewer tokens that belong to nothing
    model.save_pretrained(tmp_path)
    write(tmp_path)
    edit(tmp_path / "tokenizer_config.json", model_max_length=190)
    engine, reference = tokens_on_torch(tmp_path), Reference(tmp_path, window=190)
    texts = [text for text in written() if text]
    assert len(texts) >= 199
    count = 0
    for text, row in zip(texts, rows_alone(engine, texts), strict=True):
        for way in Aggregation:
            ours, scores = found(row, LABELS, way)
            theirs, expected = reference.found(text, way)
            assert ours == theirs, (text, way)
            np.testing.assert_allclose(scores, expected, atol=1e-5)
            count += len(ours)
    assert count > 1000, "there has to be something to compare"


def test_a_text_has_the_same_entities_alone_and_in_company(tmp_path: Path) -> None:
    engine = tokens_on_torch(bert_tokens(tmp_path))
    texts = [text * n for text in TEXTS for n in (1, 3, 30)]
    for one, other in zip(rows(engine, texts), rows_alone(engine, texts), strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
        assert one.offsets.tolist() == other.offsets.tolist()


def test_each_window_of_a_long_text_is_answered_as_transformers_answers_it(tmp_path: Path) -> None:
    engine, reference = tokens_on_torch(bert_tokens(tmp_path)), Reference(tmp_path, window=48)
    text = "it was not very good , the cat is long and a dog is bad . " * 15
    (item,) = engine.encode([text])
    (row,) = rows(engine, [text])
    assert isinstance(item, TokenText)
    assert len(row.logits) == 15 * 16
    assert row.offsets[-1].tolist() == [len(text) - 2, len(text) - 1]
    cuts = window_cuts(item.starts, len(row.logits))
    assert len(item.starts) > 5
    for start, (begin, end) in zip(item.starts, pairwise(cuts), strict=True):
        last = min(start + engine.encoder.passage_tokens, len(row.logits)) - 1
        shown = text[row.offsets[start, 0] : row.offsets[last, 1]]
        expected = reference.scores(shown)[begin - start : end - start]
        np.testing.assert_allclose(softmax(row.logits[begin:end]), expected, atol=1e-5)


def test_openvino_packs_windows_and_agrees_with_torch(tmp_path: Path) -> None:
    folder = bert_tokens(tmp_path / "model", initializer_range=0.2)
    request = converted_once(request_for(folder, task=Task.NER, engine="openvino"))
    engine: Any = load(request, prepare=prepare_here)
    assert (engine.kind, engine.packing, engine.labels) == ("openvino", PACKING, LABELS)
    reference = tokens_on_torch(folder)
    texts = [text * n for text in TEXTS for n in (1, 3, 30)]
    for one, other in zip(rows(engine, texts), rows(reference, texts), strict=True):
        np.testing.assert_allclose(softmax(one.logits), softmax(other.logits), atol=0.03)
        assert one.offsets.tolist() == other.offsets.tolist()
        assert one.is_subword.tolist() == other.is_subword.tolist()


def test_a_baked_token_classifier_serves_without_torch(tmp_path: Path) -> None:
    folder = bert_tokens(tmp_path / "model", initializer_range=0.2)
    request = request_for(folder, task=Task.NER, engine="openvino")
    bake(request, tmp_path / "baked")
    engine: Any = load_baked(request_for(tmp_path / "baked", task=Task.NER, engine="openvino"))
    (row,) = rows(engine, [TEXTS[1]])
    (other,) = rows(tokens_on_torch(folder), [TEXTS[1]])
    np.testing.assert_allclose(softmax(row.logits), softmax(other.logits), atol=0.03)


def test_padded_batches_answer_as_rows_do(tmp_path: Path) -> None:
    folder = bert_tokens(tmp_path / "model", initializer_range=0.2)
    request = converted_once(request_for(folder, task=Task.NER, engine="openvino", is_packed=False))
    engine: Any = load(request, prepare=prepare_here)
    assert engine.packing is None
    for one, other in zip(rows(engine, TEXTS), rows(tokens_on_torch(folder), TEXTS), strict=True):
        np.testing.assert_allclose(softmax(one.logits), softmax(other.logits), atol=0.03)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a classifier of texts": (
        bert,
        "which is for text-classification, not for token-classification; serve a model whose",
    ),
    "a bare encoder": (
        lambda folder: save(folder, seeded("BertModel", "BertConfig", **SIZES), word_tokenizer()),
        "BertModel, which is for feature-extraction, not for token-classification",
    ),
    "labels without names": (
        lambda folder: save(
            folder,
            seeded("BertForTokenClassification", "BertConfig", **SIZES),
            word_tokenizer(),
        ),
        "id2label has no names, only LABEL_0 to LABEL_2; name `labels` in the catalogue",
    ),
    "a label too few": (
        lambda folder: edit(
            bert_tokens(folder) / "config.json",
            id2label={str(index + 1): label for index, label in enumerate(LABELS)},
        ),
        "id2label has no label for output 0 of 5",
    ),
    "no tokenizer": (
        lambda folder: (bert_tokens(folder) / "tokenizer.json").unlink(),
        "no tokenizer.json, and none can be made of what is there",
    ),
}


@pytest.mark.parametrize(("write", "line"), REFUSED.values(), ids=REFUSED)
def test_what_can_t_label_tokens_is_refused_by_name(
    tmp_path: Path, write: Callable[[Path], object], line: str
) -> None:
    write(tmp_path)
    with pytest.raises(EngineError) as refused:
        tokens_on_torch(tmp_path)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_labels_of_the_catalogue_name_those_of_a_folder_without(tmp_path: Path) -> None:
    model = seeded("BertForTokenClassification", "BertConfig", **SIZES)
    save(tmp_path, model, word_tokenizer())
    assert tokens_on_torch(tmp_path, labels=("O", "B-X", "I-X")).labels == ("O", "B-X", "I-X")


def test_a_tokenizer_that_runs_in_python_only_is_refused(tmp_path: Path) -> None:
    model = seeded("CanineForTokenClassification", "CanineConfig", **{
        **SIZES, **NAMED, "max_position_embeddings": 64, "num_hash_buckets": 64,
    })  # fmt: skip
    model.save_pretrained(tmp_path)
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="CanineTokenizer")
    (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(EngineError, match="runs in Python only"):
        tokens_on_torch(tmp_path)


def test_an_adapter_of_another_task_is_refused(tmp_path: Path) -> None:
    folder = bert_tokens(tmp_path / "model")
    edit(tmp_path / "adapter_config.json", task_type="SEQ_CLS")
    with pytest.raises(EngineError, match="task_type is SEQ_CLS, not TOKEN_CLS"):
        tokens_on_torch(folder, adapter=tmp_path)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_answers_that_are_no_numbers_are_refused_at_load(tmp_path: Path, bad: float) -> None:
    bert_tokens(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.bias"][0] = bad
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match="answers aren't numbers"):
        tokens_on_torch(tmp_path)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_text_whose_answers_are_no_numbers_is_an_error_of_its_batch(
    tmp_path: Path, bad: float
) -> None:
    bert_tokens(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][9] = bad  # dog
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    engine = tokens_on_torch(tmp_path)
    assert rows(engine, ["the cat"])
    with pytest.raises(RowsRefusedError, match="NaN or infinity"):
        rows(engine, ["the cat", "the dog"])


class Vague(Processor):
    """Says that it computes in bfloat16, and computes another precision's answers wrongly."""

    def __init__(self, options: OpenVinoOptions) -> None:
        super().__init__(options)
        self.precision = "bf16"
        self.asked: list[str | None] = []

    def compile(self, file: Path, *, precision: str | None = None) -> Any:
        """Compile in float32, and turn the labels round unless that was asked for."""
        self.asked.append(precision)
        graphs = super().compile(file, precision="f32")
        if precision is None:
            for graph in graphs.all:
                turned: Any = graph
                turned.infer = partial(_turned, graph.infer)
        return graphs


def _turned(infer: Callable[..., Any], arrays: Any) -> Any:
    return infer(arrays)[..., ::-1]


def test_one_that_differs_in_bfloat16_is_computed_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_for(bert_tokens(tmp_path / "model", initializer_range=0.2), task=Task.NER)
    reference = load_reference(request)
    expected = answers(reference, calibration_texts(None))
    converted = convert_best(request, reference, folder_of(request))
    processor = Vague(options_of(request))
    prepared = settle(request, converted, processor, reference=reference, expected=expected)
    assert prepared.verdict.agrees
    assert (prepared.converted.is_exact, prepared.converted.packing) == (True, converted.packing)
    assert processor.asked == [None, "f32"]
    assert read(folder_of(request)) == prepared.converted
    assert [record.message for record in caplog.records] == ["bfloat16_refused"]
