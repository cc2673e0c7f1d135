"""A part of the suite of image models, with each way to prepare and each head; and its table."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
from converted import kept_conversions
from image_kinds import HEADS, IMAGE_KINDS
from image_outcomes import image_outcomes
from outcomes import Verdict
from results import NO_CLASS, cell
from tiny_images import ARCHITECTURES

from scripts.conformance import BEGIN_IMAGES, DOCUMENT
from scripts.document import END

# Each: what it is here for.
PART = {
    "image ViT, single label": "softmax; one size whatever the image's shape",
    "image DeiT, multi-label": "sigmoids; cut out of the middle",
    "image ResNet, single label": "convolutions; the shorter side is scaled, then cut",
    "image Swin, one label": "one sigmoid; windows",
    "image MobileNetV2, regression": "raw numbers; cut out of the middle",
    "image MobileViT, single label": "channels the other way round",
    "image Siglip2, single label": "refused: patches instead of pixels",
}


@pytest.fixture(scope="module")
def cells() -> Mapping[str, str]:
    """Read kind → cell in docs/models.md."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN_IMAGES)[2].partition(END)[0]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    return {
        f"image {row[0]}, {head}": word
        for row in lines
        if len(row) == len(HEADS) + 1 and row[0] in ARCHITECTURES  # not those of the refusals
        for head, word in zip(HEADS, row[1:], strict=True)
    }


@pytest.mark.no_cover  # as in test_conformance.py
@pytest.mark.parametrize("name", PART)
def test_a_kind_is_served_as_by_transformers_or_refused_as_the_table_says(
    name: str, tmp_path: Path, cells: Mapping[str, str]
) -> None:
    with kept_conversions("image conformance") as kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries' own models
        found = image_outcomes(IMAGE_KINDS[name], tmp_path / "model", kept=kept)
    wrong = {engine: o.difference for engine, o in found.items() if o.verdict is Verdict.WRONG}
    assert wrong == {}
    assert cell(found) == cells[name], "run `make conformance`"


def test_the_table_names_every_kind_and_no_other(cells: Mapping[str, str]) -> None:
    assert {name for name, word in cells.items() if word != NO_CLASS} == set(IMAGE_KINDS)


def test_the_part_has_every_head() -> None:
    assert {IMAGE_KINDS[name].name for name in PART} == set(HEADS)
    assert len(ARCHITECTURES) >= 20
