"""How a field of a model's file is refused: with file, field and remedy, in one line."""

from pathlib import Path

from app.errors import EngineError

REMOVE = "remove it if the model is right without"


def unsupported(file: Path, field: str, value: object, remedy: str) -> EngineError:
    """Return the error for a value that this service doesn't support."""
    return EngineError(f"{file}: {field}: {value!r} is not done here; {remedy}")
