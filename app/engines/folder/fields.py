"""How a field of a model's file is refused: by file, field and cure, in one line."""

from pathlib import Path

from app.errors import EngineError

REMOVE = "remove it if the model is right without"


def unsupported(file: Path, field: str, value: object, cure: str) -> EngineError:
    """Return the error of a value that this service doesn't do."""
    return EngineError(f"{file}: {field}: {value!r} is not done here; {cure}")
