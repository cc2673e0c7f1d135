"""The kinds of image models: each architecture with each head that it has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tiny_images import ARCHITECTURES, write

# Asking for one would import its module, in each process that collects tests; `dir` takes long.
NAMES = frozenset(transformers.__all__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHead:
    """What is put on a model.

    Args:
        ending: of the class of transformers.
        fields: of config.json.

    """

    ending: str = "ForImageClassification"
    fields: Mapping[str, Any] = field(default_factory=dict)


HEADS: Mapping[str, ImageHead] = {
    "single label": ImageHead(),
    "multi-label": ImageHead(fields={"problem_type": "multi_label_classification"}),
    "one label": ImageHead(fields={"num_labels": 1}),
    "regression": ImageHead(fields={"problem_type": "regression"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageKind:
    """One architecture with one head."""

    architecture: str
    name: str  # of the head
    head: ImageHead

    def __str__(self) -> str:
        return f"image {self.architecture}, {self.name}"

    @property
    def model_class(self) -> str:
        """The class of transformers that is saved."""
        return f"{self.architecture}{self.head.ending}"

    @property
    def exists(self) -> bool:
        """Whether transformers has such a class."""
        return self.model_class in NAMES

    def write(self, folder: Path) -> None:
        """Write the folder, as transformers does."""
        write(folder, self.architecture, ending=self.head.ending, **self.head.fields)


# What scores mean hangs on the head alone: each is tried with some architectures.
FIRST = "single label"
WITH_EVERY_HEAD = ("ConvNext", "DeiT", "MobileNetV2", "ResNet", "Swin", "ViT")


def _kinds() -> Iterator[ImageKind]:
    for architecture in ARCHITECTURES:
        for name, head in HEADS.items():
            if name == FIRST or architecture in WITH_EVERY_HEAD:
                yield ImageKind(architecture=architecture, name=name, head=head)


IMAGE_KINDS: Mapping[str, ImageKind] = {str(kind): kind for kind in _kinds() if kind.exists}
