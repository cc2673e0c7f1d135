"""Loads a model in a process of its own and calls it once: what it is, takes and answers."""

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from app.batching.isolation import run_isolated
from app.doctor.child import ask_child
from app.doctor.sample import sample
from app.doctor.trial import explain, load_unconverted
from app.engines.base import (
    Classifier,
    Embedder,
    FloatArray,
    TextEngine,
    TextOrPair,
    TokenClassifier,
    needs_pairs,
)
from app.engines.chat_base import ChatEngine
from app.engines.images.engine import ImageEngine
from app.engines.images.items import ImageItem
from app.engines.items import ItemEngine
from app.engines.rows import checked
from app.errors import ServiceError, StartupError
from app.models.catalog import PYTHON, REMOTE, Catalog, ModelSpec
from app.models.catalog_writing import catalog_text
from app.services.entities import Aggregation, spans_of
from app.settings import Settings, load_settings

TEXT: Final = "A film that stays with you for days."
SECOND: Final = "This film is good."  # for models that need pairs of texts
MAX_TOKENS: Final = 16
SHOWN: Final = 5  # numbers of a vector
MIB: Final = 2**20
# Linux counts kibibytes there, macOS bytes.
PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1024


def check_model(
    spec: ModelSpec, folder: Path, *, item: str | None, timeout_s: float
) -> dict[str, Any]:
    """Load a model of a catalogue and call it once, in a process of its own; writes nothing.

    Args:
        spec: its entry.
        folder: where relative sources start.
        item: of the call, as JSON; for engines of texts a text. None: one is made up.
        timeout_s: for all of it.

    Returns:
        `refused` with the reason, or what it is, what it takes, and its answer or why it has none.

    """
    shown = {"name": spec.name, "task": spec.task, "source": spec.source}
    arguments = (spec.model_dump_json(exclude_unset=True), str(folder), json.dumps(item))
    try:
        report = ask_child(__name__, *arguments, timeout_s=timeout_s)
    except StartupError as failure:
        report = {"refused": failure.line}
    return {**shown, "engine": spec.engine, **report, "entry": catalog_text([spec])}


def main() -> None:
    """Do so with what the command line has; print the report as JSON, and end."""
    logging.getLogger("app").addHandler(logging.NullHandler())  # the report has what is to be said
    spec = ModelSpec.model_validate_json(sys.argv[1])
    if spec.engine == PYTHON:
        # This is a process of its own already, and its memory is what is asked for.
        spec = spec.model_copy(update={"isolation": "thread"})
    catalog = Catalog([spec], folder=Path(sys.argv[2]))
    try:
        report = _check(catalog, spec, item=json.loads(sys.argv[3]))
    except StartupError as failure:
        report = {"refused": explain(failure)}
    except Exception as failure:  # noqa: BLE001  # as the registry says of what libraries raise
        report = {"refused": StartupError(f"{type(failure).__name__}: {failure}").line}
    print(json.dumps(report), flush=True)  # noqa: T201
    os._exit(0)  # without waiting for threads of engines


def _check(catalog: Catalog, spec: ModelSpec, *, item: str | None) -> dict[str, Any]:
    before, began_s = _resident_bytes(), time.monotonic()
    engine, version, note = load_unconverted(load_settings(Settings), catalog, spec)
    loaded_s = time.monotonic() - began_s
    report = {
        "engine": engine.kind,
        "device": engine.device,
        "version": version,
        "labels": getattr(engine, "labels", None),
        "load_s": round(loaded_s, 2),
        "note": note.strip("; "),
    }
    began_s = time.monotonic()
    report |= _call(engine, item)
    report["call_ms"] = round((time.monotonic() - began_s) * 1000, 1)
    report["memory_mib"] = round((_resident_bytes() - before) / MIB)
    return {name: value for name, value in report.items() if value not in (None, "")}


def _call(engine: object, item: str | None) -> dict[str, Any]:
    """Call an engine once; return the item, and its answer or the failure."""
    if isinstance(engine, ItemEngine):
        return _call_item(engine, item)
    text = item or TEXT
    if getattr(engine, "kind", None) == REMOTE:
        return {}  # it may charge money
    if isinstance(engine, ChatEngine):
        said = engine.chat_model.invoke(text, max_tokens=MAX_TOKENS)
        return {"item": text, "answer": said.content}
    assert isinstance(engine, TextEngine)  # noqa: S101  # there are no others
    given: TextOrPair = (text, SECOND) if needs_pairs(engine) else text
    (row,) = checked(engine)(engine.encode([given]))  # type: ignore[list-item]  # it takes pairs
    return {"item": given, "answer": _of_text(engine, row)}


def _of_text(engine: TextEngine, row: Any) -> Any:  # noqa: ANN401  # a row of any task
    """Return an engine's row for people."""
    if isinstance(engine, Classifier):
        return dict(zip(engine.labels, map(float, row), strict=True))
    if isinstance(engine, Embedder):
        return _of_vector(row)
    if isinstance(engine, TokenClassifier):
        return [asdict(span) for span in spans_of(row, engine.labels, Aggregation.SIMPLE)]
    return repr(row)


def _of_vector(row: FloatArray) -> dict[str, Any]:
    return {"dimensions": len(row), "begins": [round(float(x), 4) for x in row[:SHOWN]]}


def _call_item(engine: ItemEngine, given: str | None) -> dict[str, Any]:
    """Call an engine of items; what a class does with a made-up one is no fault of it."""
    schema = getattr(getattr(engine, "facts", None), "item_schema", None)
    if isinstance(engine, ImageEngine):
        return _call_image(engine, given)
    if given is not None:
        try:
            item = json.loads(given)
        except ValueError:
            return {"item": given, "failure": "it is no JSON"}
    elif schema is not None:
        item = sample(schema)
    else:
        return {}  # an engine of another package, which doesn't say what it takes
    (prepared,) = engine.encode([item])
    if isinstance(prepared, Exception):
        return {"item": item, "failure": _words(prepared)}
    (row,) = run_isolated(engine.run, [prepared])
    if isinstance(row, Exception):
        return {"item": item, "failure": _words(row)}
    content = getattr(row, "content", None)
    return {"item": item, "answer": json.loads(content) if content is not None else repr(row)}


def _call_image(engine: ImageEngine, given: str | None) -> dict[str, Any]:
    """Call an engine with an image in base64, or with its probe, which is noise."""
    prepared: Any = engine.preparation.probe
    if given is not None:
        (prepared,) = engine.encode([ImageItem(given)])
    shown = "an image of noise" if given is None else "the image that was given"
    if isinstance(prepared, Exception):
        return {"item": shown, "failure": _words(prepared)}
    (row,) = engine.run([prepared])
    if engine.labels:
        return {"item": shown, "answer": dict(zip(engine.labels, map(float, row), strict=True))}
    return {"item": shown, "answer": _of_vector(row)}


def _words(failure: Exception) -> str:
    """Return what is wrong, with the fields of a request, and the message of user code."""
    if isinstance(failure, ServiceError):
        fields: Sequence[Mapping[str, Any]] = failure.extensions.get("errors", ())
        wrong = [f"{'.'.join(map(str, f['loc'][1:])) or 'it'}: {f['msg']}" for f in fields]
        return "; ".join(wrong) or failure.detail
    cause = failure.__cause__
    of_cause = f": {type(cause).__name__}: {cause}" if cause is not None else ""
    return StartupError(f"{type(failure).__name__}: {failure}{of_cause}").line


def _resident_bytes() -> int:
    """Return the memory that this process has; where the system doesn't say so, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, LookupError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
    return pages * os.sysconf("SC_PAGE_SIZE")
