"""Serves a kind on each engine and holds the answers against the library that the folder is of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from kinds import WINDOW, Kind
from libraries import cross_encoder, library
from tiny import PAIRS, TEXTS, alone, pipeline_rows, request_for, together
from token_outcomes import TokenTrial
from zero_shot import hypothesis, zero_shot_rows, zero_shot_scores

from app.engines.base import (
    Classifier,
    Embedder,
    EngineRequest,
    FloatArray,
    OpenVinoOptions,
    Task,
)
from app.engines.openvino.agreement import (
    answers,
    calibration_texts,
    has_free_scores,
    verdict_file,
    write_verdict,
)
from app.engines.openvino.converted import Converted, folder_of, options_of, read
from app.engines.openvino.failures import ConversionError
from app.engines.openvino.preparation import (
    Prepared,
    compile_engine,
    convert_best,
    find,
    load_reference,
    settle,
)
from app.engines.openvino.processor import Processor
from app.errors import EngineError

# Short, long, beyond the window, special tokens as text, other scripts, none at all, blanks.
MIXED = (*TEXTS, "Café NOËL 我喜欢 🤗 кино\u200b the film", "", " \t ", "film")
LABELS = ("good", "a cat", "bad film")
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


def outcomes(kind: Kind, folder: Path, *, kept: Path | None = None) -> dict[str, Outcome]:
    """Return what each engine makes of a kind; bf16 only where the processor has it.

    Args:
        kind: what is served.
        folder: where it is written, anew.
        kept: where it is converted and compared, once; beside the folder when None.

    """
    kind.write(folder)
    # One core: kinds run side by side, and threads that wait for each other take ten times as long.
    options = OpenVinoOptions(cache=kept or folder.parent / "converted", cores=1, calls=1)
    request = replace(request_for(folder, task=kind.head.task), openvino=options)
    try:
        reference = load_reference(request)
    except EngineError as refusal:
        refused = Outcome(verdict=Verdict.REFUSED, line=line_of(refusal, folder))
        return {TORCH: refused, FLOAT32: refused}
    mixed = _mixed(kind)
    items = reference.encode(mixed, *_prompt(reference))
    # A text without tokens of its own is refused, alone and in a batch.
    encoded = zip(mixed, items, strict=True)
    texts = [text for text, item in encoded if item.cost > item.left_out]
    judge = _judge_of(kind, folder, texts, reference)
    found = {TORCH: judge(TORCH, reference)}
    try:
        place = folder_of(request)
        converted = read(place) or convert_best(request, reference, place)
    except ConversionError as refusal:
        return found | {FLOAT32: Outcome(verdict=Verdict.REFUSED, line=line_of(refusal, folder))}
    expected = cache(lambda: answers(reference, calibration_texts(None)))
    for name, processor in processors(request):
        refused = Outcome(verdict=Verdict.REFUSED, line="disagrees with torch")
        try:
            prepared = find(request, place, processor) or _settled(
                request, converted, processor, reference, expected()
            )
            converted = prepared.converted
            if not prepared.verdict.agrees:
                found[name] = refused
                break  # as the service does; some of these crash when they are compiled once more
            engine = compile_engine(request, converted, processor)
            found[name] = judge(name, engine)
        except ConversionError as refusal:
            found[name] = replace(refused, line=line_of(refusal, folder))
            break  # OpenVINO may crash if such a graph is compiled once more in this process
    return found


def _settled(
    request: EngineRequest,
    converted: Converted,
    processor: Processor,
    reference: Any,
    expected: FloatArray,
) -> Prepared:
    """Compare with torch as a start does, and keep the verdict beside the model."""
    prepared = settle(request, converted, processor, reference=reference, expected=expected)
    file = verdict_file(converted.folder, processor.precision, calibration_texts(None))
    write_verdict(file, prepared.verdict)
    return prepared


def _mixed(kind: Kind) -> Sequence[Any]:
    """Return what a kind is given; of zero-shot models each text with each label's sentence."""
    if kind.head.task == Task.ZERO_SHOT:
        return [(t, hypothesis(label)) for t in MIXED if t.strip() for label in LABELS]
    if not kind.head.has_pairs:
        return MIXED
    return (*PAIRS, (MIXED[0], "")) if kind.head.task == Task.RANKING else PAIRS


def processors(request: EngineRequest) -> Iterator[tuple[str, Processor]]:
    """Yield the processor in float32, then in bfloat16 if it has it."""
    processor = Processor(options_of(request))
    own, processor.precision = processor.precision, "f32"
    yield FLOAT32, processor
    if own == "bf16":
        processor.precision = own
        yield BFLOAT16, processor


def line_of(refusal: EngineError, folder: Path) -> str:
    """Return a refusal's line without this machine's paths."""
    line = str(refusal).replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    assert "\n" not in line
    head, _, rest = line.partition(": ")
    return rest if "/converted/" in head else line


def _judge_of(kind: Kind, folder: Path, texts: list[Any], reference: Any) -> Judge:
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


def _expected(kind: Kind, folder: Path, texts: list[Any]) -> FloatArray:
    """Return what the folder's own library answers, text by text or pair by pair."""
    if kind.head.task == Task.CLASSIFICATION:
        return pipeline_rows(folder, texts, window=WINDOW)
    if kind.head.task == Task.ZERO_SHOT:
        return zero_shot_rows(folder, [t for t, _ in texts[:: len(LABELS)]], LABELS, window=WINDOW)
    if kind.head.task == Task.RANKING:
        ranker = cross_encoder(folder)
        return np.array([ranker.predict([pair]) for pair in texts], dtype=np.float32)
    expert = library(folder)
    is_plain = kind.head.modules is None
    rows = [expert.encode([text], normalize_embeddings=is_plain)[0] for text in texts]
    return np.array(rows, dtype=np.float32)


def _judge(name: str, engine: Any, texts: list[Any], expected: FloatArray) -> Outcome:
    assert np.ptp(expected, axis=0).max() > LEAST_SPREAD, "the texts have to differ"
    assert isinstance(engine, Classifier | Embedder)
    is_free = not isinstance(engine, Classifier) or has_free_scores(engine)
    size = max(1.0, float(np.abs(expected).max())) if is_free else 1.0
    difference, is_right = 0.0, True
    for way in (alone, together):
        rows = _served(engine, way, texts)
        difference = max(difference, float(np.abs(rows - expected).max()) / size)
        is_right &= is_free or labels_equal(rows, expected)
    is_right &= difference <= MOST[name]
    verdict = Verdict.RIGHT if is_right else Verdict.WRONG
    return Outcome(verdict=verdict, difference=difference)


def _served(engine: Any, way: Way, texts: list[Any]) -> FloatArray:
    """Return the rows as the service answers them: behind the default prompt, cut and scaled.

    Of a zero-shot model a text's row has the scores of its labels, as in `zero_shot_rows`.
    """
    rows = way(engine, texts, *_prompt(engine))
    entailment = getattr(engine, "entailment", None)
    if entailment is not None:
        return zero_shot_scores(rows, entailment, count=len(LABELS))
    if isinstance(engine, Embedder):
        rows = np.array([engine.vector_rules.shaped(row) for row in rows], dtype=np.float32)
    return rows


def _prompt(engine: object) -> tuple[str, ...]:
    """Return what the service puts before a text that comes without a word of what it is."""
    return (engine.vector_rules.prompt(None),) if isinstance(engine, Embedder) else ()


def labels_equal(rows: FloatArray, expected: FloatArray) -> bool:
    """Say whether the labels are those of the library wherever it leaves no doubt."""
    if expected.shape[1] == 1:
        return True
    best = np.sort(expected, axis=1)
    is_clear = best[:, -1] - best[:, -2] > MARGIN
    return bool((rows.argmax(axis=1) == expected.argmax(axis=1))[is_clear].all())
