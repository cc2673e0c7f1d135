"""Scripts of the examples: run as a copy, because they write beside themselves."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent.parent / "examples"


def script_in(folder: Path, example: str, name: str = "train.py") -> Any:
    """Import a copy of an example's script from a folder."""
    shutil.copy(EXAMPLES / example / name, folder)
    spec = importlib.util.spec_from_file_location(f"script_of_{example}", folder / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
