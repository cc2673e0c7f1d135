"""Reads an image within bounds: which formats, how many pixels, in how much memory.

The pixels are those of transformers' `load_image`: turned as EXIF says, then RGB.
"""

import binascii
import hashlib
import re
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from app.engines.images.items import ImageItem
from app.errors import EngineError, ImageTooLargeError, ImageUnreadableError, OverloadedError

if TYPE_CHECKING:
    from PIL.Image import Image

# Of an animation the first frame. Pillow has some fifty other decoders, which are never called.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
NAMES = "JPEG, PNG, WebP, GIF or BMP"
MISSING = "images need Pillow: pip install 'ml-api[images]'"
# A progressive JPEG has about ten. Each takes a pass over all pixels, and as little as 50 bytes.
MAX_SCANS = 100
MAX_SEGMENTS = 10_000  # of a JPEG; cameras write some dozens
# What begins a segment of a JPEG: between them are a scan's data, which spells 255 as 255, 0.
# Of several 255 the last counts; `\xff+` would try each run again from each of its bytes.
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
SCAN, END = b"\xda", b"\xd9"
ADDRESSES = ("http:", "https:", "ftp:", "file:", "s3:")
STANDARD = str.maketrans("-_", "+/")  # base64's alphabet, of the one for addresses
DATA_URL = "data:"
ROOM_TIMEOUT_S = 30.0
RETRY_AFTER_S = 1


def require_pillow() -> None:
    """Check that Pillow is there.

    Raises:
        EngineError: it isn't; the line says how to get it.

    """
    try:
        import PIL.Image
    except ImportError:
        raise EngineError(MISSING) from None
    # Ours is the bound, and it comes next; this one warns of some of what ours allows.
    warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


class PixelRoom:
    """Lets only so many pixels be decoded at once, in all threads together.

    Images take their turns: a small one that would fit waits behind a large one that came before,
    which would else wait for as long as small ones come.

    Args:
        max_pixels: of all; a single image of that size always fits.

    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._held = 0
        self._waiting: deque[object] = deque()  # in the order in which they came
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until it is an image's turn, and there is room for it.

        Raises:
            OverloadedError: there was none for a long time.

        """
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                if not self._changed.wait_for(lambda: self._admits(turn, pixels), ROOM_TIMEOUT_S):
                    raise OverloadedError(retry_after_s=RETRY_AFTER_S)
                self._held += pixels
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()  # the next one may fit beside it
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()

    def _admits(self, turn: object, pixels: int) -> bool:
        if self._waiting[0] is not turn:
            return False
        return not self._held or self._held + pixels <= self._max_pixels


def read_file(item: ImageItem) -> bytes:
    """Return the file of an image, and note its size and digest; nothing is ever fetched.

    Raises:
        ImageUnreadableError: its text is no base64, or it is empty.

    """
    content = item.content
    file = content if isinstance(content, bytes) else _decode(content)
    if not file:
        raise ImageUnreadableError("The image is empty.")
    item.size = len(file)
    item.sha256 = hashlib.sha256(file).hexdigest()
    return file


def _decode(text: str) -> bytes:
    """Decode base64 of either alphabet, alone or in a `data:` URL."""
    if text[: len(DATA_URL)].lower() == DATA_URL:
        head, mark, text = text.partition(",")
        if not mark or not head.lower().endswith(";base64"):
            raise ImageUnreadableError("A data: URL of an image needs `;base64,` before its data.")
    elif text.lower().startswith(ADDRESSES):
        raise ImageUnreadableError("Addresses are not fetched; send the image itself, as base64.")
    if "\n" in text or text[:1].isspace() or text[-1:].isspace():
        text = "".join(text.split())  # encoders break lines
    if "-" in text or "_" in text:
        text = text.translate(STANDARD)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ImageUnreadableError("The image is not valid base64.") from None


def open_image(file: bytes, *, max_pixels: int) -> "Image":
    """Return an image whose header was read, and nothing else yet.

    Raises:
        ImageTooLargeError: by the size in its header.
        ImageUnreadableError: it is in no format that is taken, or its header is damaged.

    """
    import PIL.Image

    bombs = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
    try:
        image: Image = PIL.Image.open(BytesIO(file), formats=FORMATS)
    except bombs:
        raise ImageTooLargeError(f"The image has more than {max_pixels} pixels.") from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # decoders raise whatever a damaged file leads them to
        raise ImageUnreadableError(f"The image is damaged, or is none: send {NAMES}.") from None
    width, height = image.size
    if not width or not height:
        raise ImageUnreadableError("The image has no pixels.")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"The image has {width} times {height} pixels; {max_pixels} are allowed."
        )
    if image.format in {"JPEG", "MPO"} and has_many_scans(file):
        raise ImageUnreadableError(f"The image has more than {MAX_SCANS} scans.")
    return image


def has_many_scans(jpeg: bytes) -> bool:
    """Say whether a JPEG has more scans, or segments, than any that is meant to be seen.

    Its parts are walked through: other data, such as the film behind a phone's picture, may hold
    the same bytes by chance.
    """
    scans = place = 0
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.search(jpeg, place)
        if marker is None or marker[1] == END:
            return False
        scans += marker[1] == SCAN
        if scans > MAX_SCANS:
            return True
        has_length = place > 0  # all but the first have, which begins the image
        length = int.from_bytes(jpeg[marker.end() : marker.end() + 2]) if has_length else 0
        place = marker.end() + length
    return True


def decode(image: "Image") -> "Image":
    """Return the pixels of an opened image as transformers has them.

    Raises:
        ImageUnreadableError: it is cut off or damaged.

    """
    import PIL.ImageOps

    try:
        upright = PIL.ImageOps.exif_transpose(image)
        if isinstance(upright.info.get("transparency"), bytes):
            del upright.info["transparency"]  # it changes no colour, and Pillow warns of it
        return upright.convert("RGB")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # as in `open_image`
        raise ImageUnreadableError("The image is cut off or damaged.") from None
