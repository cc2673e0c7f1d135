"""What an image is in a request, and what an engine takes of it."""

from dataclasses import dataclass

from app.engines.base import FloatArray
from app.engines.items import DescribedItem

BYTES_PER_COST = 1024


@dataclass(slots=True, eq=False)
class ImageItem(DescribedItem):
    """One image of a request.

    Args:
        content: the file, or its text: base64, alone or in a `data:` URL.
        sha256: of the file, in hexadecimal; empty until a thread has read it.
        size: of the file in bytes, as far as it is known.

    """

    content: bytes | str
    sha256: str = ""
    size: int = 0

    def describe(self) -> str:
        """Return its size and digest, without its content."""
        if not self.sha256:
            return "image, not read"
        return f"image sha256:{self.sha256}, {self.size} bytes"


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image as its model takes it, (channels, height, width) float32."""

    values: FloatArray
    is_truncated: bool = False

    @property
    def cost(self) -> int:
        """Its size in KiB: so much memory does it take while it waits."""
        return cost_of(self.values)


def cost_of(values: FloatArray) -> int:
    """Return what an image of these values costs."""
    return max(1, values.nbytes // BYTES_PER_COST)
