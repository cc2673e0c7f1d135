"""Whether there is memory for one more model beside those that serve."""

from collections.abc import Callable
from pathlib import Path

from app.core.memory import free_bytes
from app.errors import EngineError
from app.models.catalog import ModelSpec
from app.models.loading import ModelLoader

# Files with weights; one of GGUF is mapped, not copied.
WEIGHTS = (".safetensors", ".bin", ".onnx")
MAPPED = ".gguf"
# The packaged classifier, 91 MB of float32, takes twice that for a while when it is converted.
COPIES = 2
MIB = 2**20


class RoomCheck:
    """Refuses a model that memory would not hold; blocks, for use in a thread.

    Args:
        loader: resolves the model's files.
        free: returns the bytes that are free; None where that isn't known.

    """

    def __init__(self, loader: ModelLoader, *, free: Callable[[], int | None] = free_bytes) -> None:
        self._loader = loader
        self._free = free

    def __call__(self, spec: ModelSpec) -> None:
        """Check a model.

        Raises:
            StartupError: it doesn't fit, or its files can't be resolved.

        """
        wanted, free = self.size(spec), self._free()
        if free is not None and wanted > free:
            raise EngineError(
                f"it needs about {wanted // MIB} MiB of memory, and {free // MIB} MiB are free"
            )

    def size(self, spec: ModelSpec) -> int:
        """Return about how many bytes of memory a model takes; raises as the check."""
        request, _ = self._loader.request(spec)
        return weight_bytes(request.folder)


def weight_bytes(path: Path | None) -> int:
    """Return about how much memory a model takes whose files are there; 0: it has none."""
    if path is None:
        return 0
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    copied = sum(file.stat().st_size for file in files if file.suffix in WEIGHTS)
    return copied * COPIES + sum(f.stat().st_size for f in files if f.suffix == MAPPED)
