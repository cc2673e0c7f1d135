"""Compares an engine with the torch model that it was made of, and stores the verdict."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from app.engines.base import (
    Activation,
    Classifier,
    Embedder,
    Encoded,
    FloatArray,
    Pair,
    TextEngine,
    TokenClassifier,
    is_regression,
    needs_pairs,
    takes_pairs,
)
from app.engines.room import longest_prompt
from app.engines.rows import RowsRefusedError, checked, width
from app.engines.scores import softmax
from app.engines.token_windows import TokenText

# Neutral texts of many lengths and tones; an adapter may bring its own beside its weights.
CALIBRATION = Path(__file__).parents[2] / "models" / "calibration.txt"
CALIBRATION_NAME = "calibration.txt"
BATCH = 8
# What texts are compared with.
WITH = "no prompt, and the longest where it isn't pooled; every second with the next as a pair"
LABEL_WORDS = 3
# Issue "OpenVINO engine": what a user may notice is a flipped label, not a third decimal.
LEAST = {"labels_equal": 0.99, "cosine_min": 0.999}
MOST = {
    "score_difference_max": 0.03,
    "batch_difference_max": 0.005,
    "length_difference_max": 0.02,  # of vectors that aren't scaled to length 1
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How far two engines differ, and whether that is close enough."""

    agrees: bool
    figures: Mapping[str, float]


def calibration_texts(adapter: Path | None) -> list[str]:
    """Return the texts to compare on, one a line: the adapter's own, or those that ship."""
    own = adapter / CALIBRATION_NAME if adapter is not None else CALIBRATION
    file = own if own.is_file() else CALIBRATION
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]


def pairs_of(engine: object, texts: Sequence[str]) -> list[Pair]:
    """Return every second text with the next one, or with its first words as a label's sentence.

    So it is where the second text is never cut.
    """
    pairs = list(zip(texts[0::2], texts[1::2], strict=False))
    if getattr(engine, "entailment", None) is None:
        return pairs
    return [(first, " ".join(second.split()[:LABEL_WORDS])) for first, second in pairs]


def _encode(engine: TextEngine, texts: Sequence[str]) -> list[Encoded]:
    """Tokenise; once more behind a prompt where prompts aren't pooled: the graph does that.

    Pairs too where the engine takes them, and nothing else where it needs them.
    """
    encoded = engine.encode(pairs_of(engine, texts)) if takes_pairs(engine) else []  # type: ignore[arg-type]  # it takes them
    pairs = list(encoded)
    if needs_pairs(engine):
        return pairs
    items = [*engine.encode(texts), *pairs]
    if isinstance(engine, Embedder):
        behind = engine.encode(texts, longest_prompt(engine))
        items += behind if any(item.left_out for item in behind) else []
    return items


def answers(engine: TextEngine, texts: Sequence[str]) -> FloatArray:
    """Return a row for each text: scores of a classifier, vectors of an embedder.

    Of a token classifier it is a row for each token, those of a text behind those of the one
    before.

    An embedder that doesn't pool a prompt has a second row for each, behind one; a classifier that
    takes pairs has rows for some of those too, or only for those.

    Neighbours in length share a batch, as they do in service; otherwise torch computes padding.
    """
    items = _encode(engine, texts)
    order = sorted(range(len(items)), key=lambda index: items[index].cost)
    rows = dict(zip(order, _in_batches(engine, [items[i] for i in order]), strict=True))
    return np.concatenate([rows[index] for index in range(len(items))])


def compare(engine: TextEngine, expected: FloatArray, texts: Sequence[str]) -> Verdict:
    """Run an engine on texts, in batches and each alone, and compare it with expected `answers`."""
    actual = answers(engine, texts)
    alone = np.concatenate([row for item in _encode(engine, texts) for row in _run(engine, [item])])
    # Numbers of a regression, logits, and vectors have a size of their own.
    is_free = isinstance(engine, Embedder) or has_free_scores(engine)
    unit = max(1.0, float(np.abs(expected).max())) if is_free else 1.0
    figures = {"batch_difference_max": float(np.abs(actual - alone).max()) / unit}
    if isinstance(engine, Classifier | TokenClassifier):
        if not is_free:  # else no label wins
            equal = actual.argmax(axis=1) == expected.argmax(axis=1)
            figures["labels_equal"] = float(equal.mean())
        figures["score_difference_max"] = float(np.abs(actual - expected).max()) / unit
    else:
        lengths = np.linalg.norm(actual, axis=1), np.linalg.norm(expected, axis=1)
        cosines = (actual * expected).sum(axis=1) / (lengths[0] * lengths[1])
        figures["cosine_min"] = float(cosines.min())
        figures["length_difference_max"] = float(np.abs(lengths[0] / lengths[1] - 1).max())
    return Verdict(agrees=is_close(figures), figures=figures)


def has_free_scores(engine: object) -> bool:
    """Say whether a classifier's scores are of any size, so that no label is the winner."""
    return is_regression(engine) or getattr(engine, "activation", None) is Activation.LOGITS


def is_close(figures: Mapping[str, float]) -> bool:
    """Compare each figure with its limit; NaN fails."""
    return all(
        value >= LEAST[name] if name in LEAST else value <= MOST[name]
        for name, value in figures.items()
    )


def _in_batches(engine: TextEngine, batch: Sequence[Encoded]) -> list[FloatArray]:
    cuts = range(0, len(batch), BATCH)
    return [row for start in cuts for row in _run(engine, batch[start : start + BATCH])]


def _run(engine: TextEngine, batch: Sequence[Encoded]) -> list[FloatArray]:
    """Return the rows of each text, (1 or its tokens, columns).

    NaN for those of a batch that is refused, which agree with nothing.
    """
    try:
        if isinstance(engine, TokenClassifier):
            return [softmax(row.logits) for row in checked(engine)(batch)]
        assert isinstance(engine, Classifier | Embedder)  # noqa: S101  # no fourth one is converted
        return [row[np.newaxis] for row in checked(engine)(batch)]
    except RowsRefusedError:
        return [_refused(engine, item) for item in batch]


def _refused(engine: TextEngine, item: Encoded) -> FloatArray:
    if isinstance(item, TokenText) and isinstance(engine, TokenClassifier):
        return np.full((len(item.offsets), len(engine.labels)), np.nan, dtype=np.float32)
    assert isinstance(engine, Classifier | Embedder)  # noqa: S101  # as above
    return np.full((1, width(engine)), np.nan, dtype=np.float32)


def verdict_file(folder: Path, precision: str, texts: Sequence[str]) -> Path:
    """Return where the verdict on a converted model is kept.

    One for each precision: another processor that shares the folder may compute in another. One
    for each set of texts, prompts and limits: a verdict on others says nothing.
    """
    return verdict_of(folder, precision, repr((list(texts), WITH, LEAST, MOST)))


def verdict_of(folder: Path, precision: str, basis: str) -> Path:
    """Return the same for any basis of a comparison."""
    return folder / f"verdict-{precision}-{hashlib.sha256(basis.encode()).hexdigest()[:8]}.json"


def write_verdict(file: Path, verdict: Verdict) -> None:
    """Write it atomically."""
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(asdict(verdict)), encoding="utf-8")
    temporary.replace(file)


def read_verdict(file: Path) -> Verdict | None:
    """Return the verdict, or None where it is missing or can't be read."""
    try:
        return Verdict(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
