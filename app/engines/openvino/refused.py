"""Remembers that a model could not be converted, so that restarts don't try it again.

The note lies beside the folder that the model would have been converted into, whose name changes
with files and libraries; it holds the settings too, and counts as long as they are the same.
"""

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from app.engines.base import EngineRequest
from app.engines.openvino.agreement import calibration_texts
from app.engines.openvino.converted import folder_of, options_of
from app.engines.openvino.failures import ConversionError

SUFFIX = ".refused.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a model could not be converted, when that was, and with which settings."""

    reason: str
    time: str  # ISO 8601, in UTC
    settings: str

    @classmethod
    def of(cls, request: EngineRequest, reason: str) -> Self:
        """Return the refusal as of now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(reason=reason, time=now, settings=_settings(request))


def file_of(request: EngineRequest) -> Path:
    """Return where the note on a model lies."""
    folder = folder_of(request)
    return folder.with_name(folder.name + SUFFIX)


def raise_remembered(request: EngineRequest) -> None:
    """Fail as the last conversion did, where nothing has changed since.

    Raises:
        ConversionError: with the reason of then, and the file to delete for another try.

    """
    file = file_of(request)
    try:
        refusal = Refusal(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return
    if refusal.settings == _settings(request):
        raise ConversionError(
            f"{refusal.reason} (so it was on {refusal.time}, and nothing has changed since:"
            f" not tried again; delete {file} to try)"
        )


def remember(request: EngineRequest, failure: ConversionError) -> None:
    """Store the refusal atomically; if that fails, the next start tries again."""
    file = file_of(request)
    temporary = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        refusal = Refusal.of(request, failure.line)
        temporary.write_text(json.dumps(asdict(refusal)), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)


def _settings(request: EngineRequest) -> str:
    """Return a digest of what affects a conversion besides the files and the libraries."""
    options = options_of(request)
    values = (
        version("ml-api"),
        request.max_tokens,
        request.device,
        options.cores,
        options.calls,
        options.streams,
        calibration_texts(request.adapter),
    )
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
