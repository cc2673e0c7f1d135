"""Serves a kind on each engine and holds the answers against the library that the folder is of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from kinds import WINDOW, Kind
from sentence_transformers import SentenceTransformer
from tiny import TEXTS, alone, pipeline_rows, request_for, together
from token_outcomes import TokenTrial

from app.engines.base import (
    Activation,
    Classifier,
    Embedder,
    EngineRequest,
    FloatArray,
    OpenVinoOptions,
    Task,
)
from app.engines.openvino.agreement import answers, calibration_texts
from app.engines.openvino.converted import folder_of, options_of
from app.engines.openvino.failures import ConversionError
from app.engines.openvino.preparation import (
    compile_engine,
    convert_best,
    load_reference,
    settle,
)
from app.engines.openvino.processor import Processor
from app.errors import EngineError

# Short, long, beyond the window, special tokens as text, other scripts, none at all, blanks.
MIXED = (*TEXTS, "Café NOËL 我喜欢 🤗 кино\u200b the film", "", " \t ", "film")
TORCH, FLOAT32, BFLOAT16 = "torch", "OpenVINO", "OpenVINO bf16"
MOST = {TORCH: 1e-3, FLOAT32: 1e-3, BFLOAT16: 2e-2}
# In bfloat16 the label may differ where two are about as likely.
MARGIN = 4e-2
# Of the scores between texts: else a model that answers all texts alike would pass.
LEAST_SPREAD = 0.02


Way = Callable[..., FloatArray]
Judge = Callable[[str, Any], "Outcome"]


class Verdict(StrEnum):
    """What became of a kind on an engine."""

    RIGHT = "right"
    REFUSED = "refused"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict, and what there is to say of it: the refusal's line, or the largest difference."""

    verdict: Verdict
    line: str = ""
    difference: float = 0.0


def outcomes(kind: Kind, folder: Path) -> dict[str, Outcome]:
    """Return what each engine makes of a kind; bf16 only where the processor has it."""
    kind.write(folder)
    # One core: kinds run side by side, and threads that wait for each other take ten times as long.
    options = OpenVinoOptions(cache=folder.parent / "converted", cores=1, calls=1)
    request = replace(request_for(folder, task=kind.head.task), openvino=options)
    try:
        reference = load_reference(request)
    except EngineError as refusal:
        refused = Outcome(verdict=Verdict.REFUSED, line=_line(refusal, folder))
        return {TORCH: refused, FLOAT32: refused}
    items = reference.encode(MIXED, *_prompt(reference))
    # A text without tokens of its own is refused, alone and in a batch.
    pairs = zip(MIXED, items, strict=True)
    texts = [text for text, item in pairs if item.cost > item.left_out]
    judge = _judge_of(kind, folder, texts, reference)
    found = {TORCH: judge(TORCH, reference)}
    try:
        converted = convert_best(request, reference, folder_of(request))
    except ConversionError as refusal:
        return found | {FLOAT32: Outcome(verdict=Verdict.REFUSED, line=_line(refusal, folder))}
    answered = answers(reference, calibration_texts(None))
    for name, processor in _processors(request):
        refused = Outcome(verdict=Verdict.REFUSED, line="disagrees with torch")
        try:
            prepared = settle(request, converted, processor, reference=reference, expected=answered)
            converted = prepared.converted
            engine = compile_engine(request, converted, processor)
            agrees = prepared.verdict.agrees
            found[name] = judge(name, engine) if agrees else refused
        except ConversionError as refusal:
            found[name] = replace(refused, line=_line(refusal, folder))
            break  # OpenVINO may crash if such a graph is compiled once more in this process
    return found


def _processors(request: EngineRequest) -> Iterator[tuple[str, Processor]]:
    """Yield the processor in float32, then in bfloat16 if it has it."""
    processor = Processor(options_of(request))
    own, processor.precision = processor.precision, "f32"
    yield FLOAT32, processor
    if own == "bf16":
        processor.precision = own
        yield BFLOAT16, processor


def _line(refusal: EngineError, folder: Path) -> str:
    """Return a refusal's line without this machine's paths."""
    line = str(refusal).replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    assert "\n" not in line
    head, _, rest = line.partition(": ")
    return rest if "/converted/" in head else line


def _judge_of(kind: Kind, folder: Path, texts: list[str], reference: Any) -> Judge:
    """Return what holds an engine against the folder's own library."""
    if kind.head.task != Task.NER:
        expected = _expected(kind, folder, texts)
        return lambda name, engine: _judge(name, engine, texts, expected)
    trial = TokenTrial(folder, texts, reference.encode(texts))
    return lambda name, engine: _judge_tokens(name, engine, trial)


def _judge_tokens(name: str, engine: Any, trial: TokenTrial) -> Outcome:
    spread = np.ptp(np.concatenate(trial.expected), axis=0).max()
    assert spread > LEAST_SPREAD, "the tokens have to differ"
    difference, is_right = trial.judge(engine, margin=MARGIN)
    is_right &= difference <= MOST[name]
    verdict = Verdict.RIGHT if is_right else Verdict.WRONG
    return Outcome(verdict=verdict, difference=difference)


def _expected(kind: Kind, folder: Path, texts: list[str]) -> FloatArray:
    """Return what the folder's own library answers, text by text."""
    if kind.head.task == Task.CLASSIFICATION:
        return pipeline_rows(folder, texts, window=WINDOW)
    library = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    is_plain = kind.head.modules is None
    rows = [library.encode([text], normalize_embeddings=is_plain)[0] for text in texts]
    return np.array(rows, dtype=np.float32)


def _judge(name: str, engine: Any, texts: list[str], expected: FloatArray) -> Outcome:
    assert np.ptp(expected, axis=0).max() > LEAST_SPREAD, "the texts have to differ"
    assert isinstance(engine, Classifier | Embedder)
    is_free = not isinstance(engine, Classifier) or engine.activation is Activation.NONE  # type: ignore[attr-defined]  # both engines have it
    size = max(1.0, float(np.abs(expected).max())) if is_free else 1.0
    difference, is_right = 0.0, True
    for way in (alone, together):
        rows = _served(engine, way, texts)
        difference = max(difference, float(np.abs(rows - expected).max()) / size)
        is_right &= is_free or _labels_equal(rows, expected)
    is_right &= difference <= MOST[name]
    verdict = Verdict.RIGHT if is_right else Verdict.WRONG
    return Outcome(verdict=verdict, difference=difference)


def _served(engine: Classifier | Embedder, way: Way, texts: list[str]) -> FloatArray:
    """Return the rows as the service answers them: behind the default prompt, cut and scaled."""
    rows = way(engine, texts, *_prompt(engine))
    if isinstance(engine, Embedder):
        rows = np.array([engine.vector_rules.shaped(row) for row in rows], dtype=np.float32)
    return rows


def _prompt(engine: object) -> tuple[str, ...]:
    """Return what the service puts before a text that comes without a word of what it is."""
    return (engine.vector_rules.prompt(None),) if isinstance(engine, Embedder) else ()


def _labels_equal(rows: FloatArray, expected: FloatArray) -> bool:
    """Say whether the labels are those of the library wherever it leaves no doubt."""
    if expected.shape[1] == 1:
        return True
    best = np.sort(expected, axis=1)
    is_clear = best[:, -1] - best[:, -2] > MARGIN
    return bool((rows.argmax(axis=1) == expected.argmax(axis=1))[is_clear].all())
