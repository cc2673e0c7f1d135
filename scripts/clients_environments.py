"""Environments of `make clients-check`: which clients share one, and what is installed in it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from scripts.clients_page import Client

# Clients whose requirements clash with those of the others, by the environment that they get.
APART: dict[str, tuple[str, ...]] = {
    "crewai": ("crewai",),
    "guidellm": ("guidellm",),  # it brings torch
    "instructor": ("instructor",),
    "node-older": ("instructor-js",),
    "older": ("autogen", "llama-index", "mirascope", "semantic-kernel", "strands-agents"),
}
PYTHON = "python"
NODE = "node"
# The newest clients want Node 22, and this package brings one.
NODE_ITSELF = "node"
INSTALL_S = 1_800
NO_MATTER = (
    "WARNING:",  # of pip, of its caches and indexes
    "npm warn",
    "[notice]",
)


class NotToBeHadError(Exception):
    """It can't be installed; the installer's last line is the message."""


def name_of(client: Client) -> str:
    """Return the name of a client's environment."""
    apart = (name for name, clients in APART.items() if client.name in clients)
    return next(apart, NODE if installer_of(client) == "npm" else PYTHON)


def installer_of(client: Client) -> str:
    """Return what makes a client's environment, also where nothing has to be installed in it."""
    is_js = any(block.language == "js" for block in client.blocks)
    return "npm" if client.installer == "npm" or is_js else "pip"


def missing(client: Client) -> str:
    """Return which commands of the system a client lacks: they are nothing that we install."""
    commands = client.packages if client.installer == "apt-get" else ()
    lacking = [command for command in commands if shutil.which(command) is None]
    return f"there is no {', '.join(lacking)} on this machine" if lacking else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A folder in which a set of packages is installed.

    Args:
        folder: of pip: a virtual environment; of npm: has `node_modules`.
        installer: `pip` or `npm`.
        packages: of all its clients.

    """

    folder: Path
    installer: str
    packages: tuple[str, ...]

    @property
    def runtime(self) -> Path:
        """Where npm has put Node."""
        return self.folder / "runtime"

    @property
    def programs(self) -> Path:
        """Where Python or Node is."""
        if self.installer == "pip":
            return self.folder / "bin"
        return self.runtime / "node_modules" / ".bin"

    def install(self, python: str, torch: str) -> None:
        """Install the newest versions, unless the same packages were installed before.

        Args:
            python: that makes virtual environments.
            torch: the one version of torch that may come; others are of gigabytes.

        Raises:
            NotToBeHadError: the registry, or the versions that fit together, don't allow it.

        """
        stamp = self.folder / "installed.json"
        if stamp.exists() and json.loads(stamp.read_text("utf-8")) == list(self.packages):
            return
        stamp.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        print(f"installing into {self.folder}: {', '.join(self.packages)}", flush=True)
        if self.installer == "pip":
            run(python, "-m", "venv", self.folder)
            constraints = self.folder / "constraints.txt"
            constraints.write_text(torch, encoding="utf-8")
            flags = ("--upgrade", "--quiet", "--no-input", "--disable-pip-version-check")
            pip = (self.folder / "bin" / "python", "-m", "pip", "install", *flags)
            run(*pip, "-c", constraints, *self.packages)
        else:
            # npm chooses versions that run in the Node that runs npm.
            install_with_npm(self.runtime, (NODE_ITSELF,))
            install_with_npm(self.folder, self.packages, path=self.programs)
        stamp.write_text(json.dumps(self.packages), encoding="utf-8")

    def versions(self) -> Mapping[str, str]:
        """Return the version of each package that is there."""
        if self.installer == "pip":
            places = [str(place) for place in self.folder.glob("lib/python*/site-packages")]
            return {found.name: found.version for found in distributions(path=places)}
        lock = json.loads((self.folder / "package-lock.json").read_text("utf-8"))
        prefix = "node_modules/"
        return {
            place.removeprefix(prefix): str(package["version"])
            for place, package in lock["packages"].items()
            if place.count(prefix) == 1 and place.startswith(prefix) and "version" in package
        }


def install_with_npm(folder: Path, packages: Sequence[str], path: Path | None = None) -> None:
    """Install packages into a folder, with the Node of another folder or the machine's.

    Raises:
        NotToBeHadError: as `Environment.install`.

    """
    npm = shutil.which("npm")
    if npm is None:
        raise NotToBeHadError("there is no npm")
    folder.mkdir(parents=True, exist_ok=True)
    about = {"private": True, "type": "module"}
    (folder / "package.json").write_text(json.dumps(about), encoding="utf-8")
    flags = ("--no-fund", "--no-audit", "--loglevel", "error")
    run(npm, "install", *flags, *packages, folder=folder, path=path)


def run(*command: str | Path, folder: Path | None = None, path: Path | None = None) -> str:
    """Run an installer, with the programs of `path` before others; return its output.

    Raises:
        NotToBeHadError: it failed, or took too long.

    """
    programs = f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]
    try:
        done = subprocess.run(
            [*command],
            cwd=folder,
            env={**os.environ, "NO_COLOR": "1", "PATH": programs},
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_S,
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHadError(f"to install took more than {INSTALL_S} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith(NO_MATTER)]
        raise NotToBeHadError(" / ".join(told[:3]) or "the installer failed")
    return done.stdout


def environments(clients: Iterable[Client], root: Path) -> Mapping[str, Environment]:
    """Return the environments that clients need, by name."""
    packages: dict[str, list[str]] = {}
    installers: dict[str, str] = {}
    for client in clients:
        name = name_of(client)
        installers[name] = installer_of(client)
        wanted = () if client.installer == "apt-get" else client.packages
        packages.setdefault(name, []).extend(wanted)
    return {
        name: Environment(
            folder=root / name,
            installer=installers[name],
            packages=tuple(sorted(set(packages[name]))),
        )
        for name in packages
    }


def plain(package: str) -> str:
    """Return a package's name without extras and bounds; an npm scope begins with @."""
    name = re.match(r"@?[^@\[<>=~!]+", package)
    return name[0].lower().replace("_", "-") if name else package


def versions_of(client: Client, installed: Mapping[str, str]) -> Sequence[str]:
    """Return `name version` of each package of a client."""
    same = {plain(name): version for name, version in installed.items()}
    names = [plain(package) for package in client.packages]
    return [f"{name} {same[name]}" for name in names if name in same]
