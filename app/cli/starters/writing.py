"""Writes the files of a starter into a folder of its own, with the catalogue that serves it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.errors import StartupError
from app.models.catalog import ONNX, PYTHON, ModelSpec
from app.models.catalog_writing import write_catalog
from app.models.export import refuse_used

HERE: Final = Path(__file__).parent
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CATALOG: Final = "models.toml"
# The starters are kept as texts: they need libraries that this program does without.
FILES: Final[Mapping[str, Mapping[str, str]]] = {
    "sklearn": {"model.py": "sklearn.py.txt"},
    "torch": {"model.py": "torch.py.txt"},
    "onnx": {"model.onnx": "model.onnx", "export.py": "export.py.txt"},
}
NEEDS: Final[Mapping[str, str]] = {
    "sklearn": "scikit-learn: pip install scikit-learn",
    "torch": "",
    "onnx": "ONNX Runtime: pip install 'ml-api[onnx]'; export.py says how model.onnx was made",
}


def write(name: str, kind: str, folder: Path) -> list[Path]:
    """Write a starter; return its files.

    Args:
        name: of the model.
        kind: of `FILES`.
        folder: is made; it may exist if it is empty.

    Raises:
        StartupError: no model can have this name, or the folder is in use or can't be written.

    """
    if not NAME.fullmatch(name):
        raise StartupError(
            f"{name}: no name of a model: letters, digits, '.', '_' and '-', at most 64"
        )
    refuse_used(folder)
    starter = FILES[kind]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, source in starter.items():
            (folder / target).write_bytes((HERE / source).read_bytes())
        write_catalog([_entry(name, kind)], folder / CATALOG)
    except OSError as failure:
        raise StartupError(f"{folder}: can't be written: {failure.strerror}") from failure
    return [folder / file for file in (*starter, CATALOG)]


def _entry(name: str, kind: str) -> ModelSpec:
    engine, source = (ONNX, "model.onnx") if kind == "onnx" else (PYTHON, "model.py:Model")
    return ModelSpec.model_validate({"name": name, "engine": engine, "source": f"file:{source}"})
