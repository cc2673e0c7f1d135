"""What the folder of a converted image model holds, beside the graph."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from app.engines.base import Activation
from app.engines.images.engine import ImageHead
from app.engines.openvino.converted import DESCRIPTION, GRAPH, WEIGHTS, fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedImages:
    """A converted image model; its image processor stays in the folder that it was made of."""

    folder: Path
    head: ImageHead

    @property
    def graph(self) -> Path:
        """The graph in OpenVINO's own format; the weights lie beside it."""
        return self.folder / GRAPH

    @property
    def weights(self) -> Path:
        """The weights, in float32."""
        return self.folder / WEIGHTS


def describe(converted: ConvertedImages) -> None:
    """Write what `read` gives back, with a fingerprint of each file."""
    files = {name: fingerprint(converted.folder / name) for name in (GRAPH, WEIGHTS)}
    description = {"head": asdict(converted.head), "files": files}
    (converted.folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def read(folder: Path) -> ConvertedImages | None:
    """Return the converted model of a folder; None if it is missing or damaged."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        files = description["files"]
        is_intact = all(fingerprint(folder / name) == digest for name, digest in files.items())
        head = description["head"]
        head = ImageHead(
            **head | {"labels": tuple(head["labels"]), "activation": Activation(head["activation"])}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ConvertedImages(folder=folder, head=head) if is_intact else None
