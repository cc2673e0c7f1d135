"""What deploy/kubernetes makes: of the base, of each component on it, of all, of each overlay."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
COMPONENTS = FOLDER / "components"
OVERLAYS = FOLDER / "overlays"
# Each of the pair sets the replicas of one Deployment.
APART = ("hpa", "keda")
CUSTOMIZATION = "kustomization.yaml"


def kustomize() -> Sequence[str] | None:
    """Return the command that builds; None where there is neither kustomize nor kubectl."""
    if program := shutil.which("kustomize"):
        return (program, "build")
    if program := shutil.which("kubectl"):
        return (program, "kustomize")
    return None


def component_names() -> list[str]:
    """Return the folders of components/."""
    return sorted(path.name for path in COMPONENTS.iterdir())


def combinations() -> dict[str, tuple[str, ...]]:
    """Return what is tried: a name -> components."""
    names = component_names()
    alone = {name: (name,) for name in names}
    whole = {
        f"all with {one}": tuple(name for name in names if name not in set(APART) - {one})
        for one in APART
    }
    return {"base": (), **alone, **whole}


def build(folder: Path, command: Sequence[str]) -> list[Json]:
    """Build a kustomization.

    Raises:
        ValueError: it can't be built; what the program said.

    """
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{folder.name}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def build_all(command: Sequence[str], folder: Path = FOLDER) -> Mapping[str, list[Json]]:
    """Build every combination, and every overlay: a name -> its objects.

    Raises:
        ValueError: one can't be built.

    """
    built = {}
    with tempfile.TemporaryDirectory(prefix="kustomize-") as name:
        place = Path(name).resolve()
        back = os.path.relpath(folder, place)  # kustomize takes no absolute paths
        for what, components in combinations().items():
            made = {
                "resources": [f"{back}/base"],
                "components": [f"{back}/components/{each}" for each in components],
            }
            (place / CUSTOMIZATION).write_text(yaml.safe_dump(made), encoding="utf-8")
            built[what] = build(place, command)
    for overlay in sorted((folder / "overlays").iterdir()):
        built[f"overlays/{overlay.name}"] = build(overlay, command)
    return built


def named(objects: Sequence[Json], kind: str) -> dict[str, Json]:
    """Return the objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}
