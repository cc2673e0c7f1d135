"""Image files in all formats and modes that are read, made by Pillow, the same ones each time."""

from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

SIZE = (60, 44)
ORIENTATION = 0x0112  # the tag of EXIF
MAX_16_BIT = 65_535


def picture(size: tuple[int, int] = SIZE, *, cells: int = 5, seed: int = 1) -> Image.Image:
    """Return an RGB image with shapes and colours."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the file of an image."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(size: tuple[int, int] = SIZE, **fields: Any) -> bytes:
    """Return a PNG."""
    return saved(picture(size, **fields), "PNG")


def with_alpha(image: Image.Image, mode: str = "RGBA") -> Image.Image:
    """Return an image whose left half can be seen through."""
    image = image.convert(mode)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(40, (0, 0, image.width // 2, image.height))
    image.putalpha(alpha)
    return image


def turned(orientation: int) -> bytes:
    """Return a JPEG that says how it is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(picture(), "JPEG", exif=exif)


def deep() -> Image.Image:
    """Return an image of 16 bits."""
    steps = np.linspace(0, MAX_16_BIT, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0])
    return Image.fromarray(steps.astype(np.uint16))


def half_clear_palette() -> bytes:
    """Return a PNG of colours in a table, some of which can be seen through."""
    return saved(picture().quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))


@cache
def pictures() -> Mapping[str, bytes]:
    """Return files by what is special about them."""
    frames = [picture(seed=seed) for seed in (3, 4, 5)]
    return {
        "JPEG": saved(picture(), "JPEG"),
        "JPEG, progressive": saved(picture(seed=2), "JPEG", progressive=True),
        "JPEG, grey": saved(picture(seed=6).convert("L"), "JPEG"),
        "JPEG, CMYK": saved(picture(seed=7).convert("CMYK"), "JPEG"),
        **{f"JPEG, EXIF {turn}": turned(turn) for turn in range(2, 9)},
        "PNG, RGB": png(seed=8),
        "PNG, RGBA": saved(with_alpha(picture(seed=9)), "PNG"),
        "PNG, L": saved(picture(seed=10).convert("L"), "PNG"),
        "PNG, LA": saved(with_alpha(picture(seed=11), "LA"), "PNG"),
        "PNG, P": saved(picture(seed=12).quantize(32), "PNG"),
        "PNG, P, transparent": half_clear_palette(),
        "PNG, 1 bit": saved(picture(seed=13).convert("1"), "PNG"),
        "PNG, 16 bit": saved(deep(), "PNG"),
        "WebP": saved(picture(seed=14), "WEBP"),
        "WebP, lossless, alpha": saved(with_alpha(picture(seed=15)), "WEBP", lossless=True),
        "GIF": saved(picture(seed=16).quantize(64), "GIF"),
        "GIF, frames": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "BMP": saved(picture(seed=17), "BMP"),
        "one pixel": png((1, 1)),
        "two pixels": png((2, 1), seed=18),
        "very wide": png((500, 3), seed=19),
        "very high": png((3, 500), seed=20),
        "large": png((1500, 1000), cells=40, seed=21),
    }
