"""Reading images: the pixels of transformers, and bounds that hold before anything is decoded."""

import base64
import hashlib
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from pictures import pictures, png, saved, turned
from PIL import Image
from transformers.image_utils import load_image

from app.engines.images.items import ImageItem
from app.engines.images.reading import (
    MAX_SCANS,
    MAX_SEGMENTS,
    PixelRoom,
    decode,
    open_image,
    read_file,
)
from app.errors import ImageTooLargeError, ImageUnreadableError

MAX_PIXELS = 2_000_000
LATE_S = 10.0
SCAN_MARK = b"\xff\xda"


def read(file: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    return decode(open_image(file, max_pixels=max_pixels))


@pytest.mark.parametrize("name", pictures())
def test_pixels_are_those_of_transformers(name: str) -> None:
    file = pictures()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about palettes; ours raises none
        expected = np.array(load_image(Image.open(BytesIO(file))))
    assert np.array_equal(np.array(read(file)), expected)


def test_what_exif_says_turns_the_image() -> None:
    assert read(turned(6)).size == read(turned(1)).size[::-1]


def test_of_an_animation_the_first_frame_is_read() -> None:
    first = read(pictures()["GIF, frames"])
    assert np.array_equal(np.array(first), np.array(read(pictures()["GIF, frames"])))
    with Image.open(BytesIO(pictures()["GIF, frames"])) as image:
        image.seek(2)
        assert not np.array_equal(np.array(first), np.array(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "TGA", "JPEG2000", "PCX", "SGI", "EPS"])
def test_other_formats_are_never_opened(kind: str) -> None:
    with pytest.raises(ImageUnreadableError, match="send JPEG, PNG, WebP, GIF or BMP"):
        read(saved(Image.new("RGB", (16, 16)), kind))


@pytest.mark.parametrize("name", ["JPEG", "PNG, RGB", "WebP", "GIF", "BMP", "JPEG, progressive"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_unreadable(name: str, part: float) -> None:
    file = pictures()[name]
    with pytest.raises(ImageUnreadableError):
        read(file[: int(len(file) * part)])


@pytest.mark.parametrize("name", ["JPEG", "PNG, RGB", "PNG, P", "WebP", "GIF", "BMP"])
def test_damaged_files_are_read_or_unreadable_and_nothing_else(name: str) -> None:
    file = bytearray(pictures()[name])
    random = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(file)
        for place in random.integers(0, min(len(file), 400), 4):
            damaged[place] = random.integers(0, 256)
        with suppress(ImageUnreadableError, ImageTooLargeError):
            assert read(bytes(damaged)).mode == "RGB"


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of some hundred bytes whose header announces that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def gif(width: int, height: int) -> bytes:
    """Return the header of a GIF of that size."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)


@pytest.mark.parametrize(
    "size", [(2_001, 1_000), (12_000, 10_000), (30_000, 30_000), (1, 2**31 - 1)]
)
def test_a_bomb_is_refused_by_its_header_before_it_is_decoded(size: tuple[int, int]) -> None:
    file = bomb(*size)
    assert len(file) < 200
    began = time.process_time()
    with pytest.raises(ImageTooLargeError):
        open_image(file, max_pixels=MAX_PIXELS)
    assert time.process_time() - began < 0.5


def test_an_image_of_just_the_allowed_size_is_read() -> None:
    assert read(png((200, 100)), max_pixels=20_000).size == (200, 100)
    with pytest.raises(ImageTooLargeError, match="200 times 100 pixels; 19999 are allowed"):
        read(png((200, 100)), max_pixels=19_999)


def test_a_jpeg_with_hundreds_of_passes_is_refused() -> None:
    file = pictures()["JPEG, progressive"]
    start = file.index(SCAN_MARK)
    end = file.index(SCAN_MARK, start + 2)
    many = file[:end] + file[start:end] * MAX_SCANS + file[end:]
    with pytest.raises(ImageUnreadableError, match=f"more than {MAX_SCANS} scans"):
        read(many)
    comment = b"\xff\xfe\x00\x04ab"
    with pytest.raises(ImageUnreadableError, match="scans"):
        read(file[:2] + comment * MAX_SEGMENTS + file[2:])


def test_a_run_of_255_in_a_jpeg_is_read_at_once() -> None:
    file = pictures()["JPEG"]
    start = file.index(b"\xff\xda") + 20
    began_s = time.monotonic()
    with suppress(ImageUnreadableError):
        read(file[:start] + b"\xff" * 200_000 + b"\0")
    assert time.monotonic() - began_s < 2


def test_what_only_looks_like_a_scan_is_none() -> None:
    file = pictures()["JPEG"]
    segment = b"\xff\xe5" + (1002).to_bytes(2) + SCAN_MARK * 500
    film = b"....ftypmp42" + SCAN_MARK * 500
    assert np.array_equal(
        np.array(read(file[:2] + segment + file[2:] + film)), np.array(read(file))
    )


def test_base64_and_data_urls_give_the_same_file() -> None:
    file = png()
    text = base64.b64encode(file).decode()
    broken = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for content in (
        file,
        text,
        broken,
        f" {text}\r\n",
        base64.urlsafe_b64encode(file).decode(),
        f"data:image/png;base64,{text}",
        f"data:;base64,{text}",
        f"DATA:image/PNG;BASE64,{text}",
    ):
        item = ImageItem(content)
        assert read_file(item) == file
        assert item.describe() == (
            f"image sha256:{hashlib.sha256(file).hexdigest()}, {len(file)} bytes"
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("http://127.0.0.1/cat.png", "not fetched"),
        ("HTTPS://example.com/cat.png", "not fetched"),
        ("file:///etc/passwd", "not fetched"),
        ("data:image/png,abc", "needs `;base64,`"),
        ("data:image/png;base64", "needs `;base64,`"),
        ("/etc/passwd", "not valid base64"),
        ("aGVsbG8", "not valid base64"),
        ("größe", "not valid base64"),
        ("****", "not valid base64"),
    ],
)
def test_what_is_no_base64_is_unreadable(content: str, reason: str) -> None:
    with pytest.raises(ImageUnreadableError, match=reason):
        read_file(ImageItem(content))


def test_an_image_that_was_not_read_is_described_as_such() -> None:
    assert ImageItem("c2VjcmV0").describe() == "image, not read"


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("make", [bomb, gif])
def test_an_image_without_pixels_is_unreadable(
    size: tuple[int, int], make: Callable[[int, int], bytes]
) -> None:
    with pytest.raises(ImageUnreadableError):
        read(make(*size))


def test_a_large_image_has_its_turn_before_small_ones_that_came_later() -> None:
    room, order = PixelRoom(100), list[str]()

    def hold(name: str, pixels: int) -> None:
        with room.hold(pixels):
            order.append(name)

    with room.hold(60):
        large = threading.Thread(target=hold, args=("large", 60))
        large.start()
        until(lambda: len(room._waiting) == 1)
        small = threading.Thread(target=hold, args=("small", 40))
        small.start()
        until(lambda: len(room._waiting) == 2 or bool(order))
    for thread in (large, small):
        thread.join(LATE_S)
    assert order == ["large", "small"]


def until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LATE_S
    while not holds():
        assert time.monotonic() < until_s
        threading.Event().wait(0.005)


def test_only_so_many_pixels_are_decoded_at_once() -> None:
    room, entered, leave = PixelRoom(100), threading.Event(), threading.Event()

    def hold(pixels: int) -> None:
        with room.hold(pixels):
            entered.set()
            leave.wait(LATE_S)

    first = threading.Thread(target=hold, args=(60,))
    first.start()
    assert entered.wait(LATE_S)
    with room.hold(40):  # fits beside it
        entered.clear()
        second = threading.Thread(target=hold, args=(60,))
        second.start()
        assert not entered.wait(0.05)
    leave.set()
    assert entered.wait(LATE_S)
    for thread in (first, second):
        thread.join(LATE_S)
    with room.hold(1000):  # alone it has all the room
        pass
