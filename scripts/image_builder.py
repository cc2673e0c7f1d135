"""Builds the images of the Dockerfile with buildah, in a scratch folder, as root, without a daemon.

Where no registry is in reach, a base image is bootstrapped from Debian's packages: it has what the
Dockerfile takes from the real one, a `python` and a `pip`.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BUILDAH = shutil.which("buildah") or "buildah"
UMOUNT = shutil.which("umount") or "umount"
UNSHARE = shutil.which("unshare") or "unshare"
BASE = "localhost/base"
# What Debian's python3 lacks to stand in for the image called python.
BASE_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LINK_PYTHON = 'ln -s /usr/bin/python3 "$1/usr/local/bin/python"'
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_SETTING = re.compile(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$")
LOCAL_PATH = re.compile(r"(?<!\S)(file://)?(/[^\s'\"]+)")


class CannotBuildError(Exception):
    """Images can't be built on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of an image: what made it, and its bytes as files and as a registry holds them."""

    made_by: str
    size: int
    packed: int


class Builder:
    """buildah with a storage of its own.

    Args:
        scratch: folder that everything lies in, removed by whoever made it.
        base: an image to pull as the base, or None to bootstrap one.

    """

    def __init__(self, scratch: Path, *, base: str | None = None) -> None:
        self._scratch = scratch
        self._base = base
        self._options = [
            *("--root", str(scratch / "storage"), "--runroot", str(scratch / "run")),
            *("--storage-driver", storage_driver(scratch)),
        ]

    def build(self, target: str, **arguments: str) -> str:
        """Build a target; return the image's name.

        Raises:
            CannotBuildError: the base can't be had.
            subprocess.CalledProcessError: the build failed; what it said is on standard error.

        """
        base = self._base or self._bootstrap()
        name = f"localhost/ml-api-{target}"
        given = {"BASE_IMAGE": base, **arguments}
        self.run(
            *("build", "--isolation", "chroot", "--format", "docker", "--layers", "--quiet"),
            *("--target", target, "--tag", name),
            *(f"--build-arg={key}={value}" for key, value in given.items()),
            *self._pip_options(),
            str(ROOT),
        )
        return name

    def config(self, image: str) -> Mapping[str, Any]:
        """Return an image's configuration: user, command, health check, labels."""
        said: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))
        config: dict[str, Any] = said["Docker"]["config"]
        return config

    def layers(self, image: str) -> list[Layer]:
        """Measure an image's layers, the base's among them."""
        said: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))
        made = [step for step in said["OCIv1"]["history"] if not step.get("empty_layer")]
        return [
            Layer(made_by=step.get("created_by", "the base image"), size=size, packed=small)
            for step, size, small in zip(
                made, self._unpacked(image), self._packed(image), strict=True
            )
        ]

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Make a container of an image, and give the folder where its files are."""
        container = self.run("from", image)
        try:
            yield Path(self.run("mount", container))
        finally:
            self.run("umount", container)
            self.run("rm", container)

    def run(self, *arguments: str) -> str:
        """Run buildah; return what it prints."""
        done = subprocess.run(
            [BUILDAH, *self._options, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self._scratch)},
        )
        return done.stdout.strip()

    def _unpacked(self, image: str) -> list[int]:
        """Return the sizes of an image's layers as they are; what Docker loads isn't compressed."""
        file = self._scratch / "image.tar"
        self.run("push", "--quiet", image, f"docker-archive:{file}")
        with tarfile.open(file) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None  # noqa: S101  # it is no folder
            names = json.load(manifest)[0]["Layers"]
            sizes = [archive.getmember(name).size for name in names]
        file.unlink()
        return sizes

    def _packed(self, image: str) -> list[int]:
        """Return the sizes of an image's layers as a registry holds them."""
        folder = self._scratch / "pushed"
        self.run("push", "--quiet", image, f"dir:{folder}")
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        shutil.rmtree(folder)
        return [layer["size"] for layer in manifest["layers"]]

    def _bootstrap(self) -> str:
        """Make a base image of this machine's own Debian or Ubuntu release, once."""
        if BASE in self.run("images", "--format", "{{.Name}}").splitlines():
            return BASE
        archive = self._scratch / "base.tar"
        made = subprocess.run(
            [
                *("mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}"),
                *(f"--customize-hook={LINK_PYTHON}", "--quiet", codename(), archive),
            ],
            check=False,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self._scratch)},
        )
        if made.returncode:
            raise CannotBuildError(f"no base image: mmdebstrap: {made.stderr.strip()[-500:]}")
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(archive), "/")
        self.run("config", "--env", f"PATH={BASE_PATH}", container)
        self.run("commit", "--quiet", "--rm", container, BASE)
        archive.unlink()
        return BASE

    def _pip_options(self) -> list[str]:
        """Let the build use this machine's package index, also where that is a folder."""
        settings = pip_settings()
        file = self._scratch / "pip.conf"
        lines = [f"{name} = {value}" for name, value in settings.items()]
        file.write_text("\n".join(["[global]", *lines]) + "\n", encoding="utf-8")
        # An index that is a folder keeps its files beside its pages.
        found = {
            str(Path(path).parent) if scheme else path
            for value in settings.values()
            for scheme, path in LOCAL_PATH.findall(value)
        }
        # An index behind an inspecting proxy is believed by this machine's certificates only.
        shared = {file: "/etc/pip.conf"} | {
            Path(path): path for path in (*found, str(CERTIFICATES)) if Path(path).exists()
        }
        return [f"--volume={path}:{target}:ro" for path, target in shared.items()]


def pip_settings() -> dict[str, str]:
    """Return how pip is set up here: indexes, folders of wheels, certificates."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found = (PIP_SETTING.match(line) for line in said.splitlines())
    return {match[1]: match[2] for match in found if match}


def codename() -> str:
    """Return this machine's release, as its package archive calls it.

    Raises:
        CannotBuildError: it is no Debian or Ubuntu.

    """
    release = platform.freedesktop_os_release()
    if not {"debian", "ubuntu"} & {release["ID"], *release.get("ID_LIKE", "").split()}:
        raise CannotBuildError("no base image: name one (BASE_IMAGE), this is no Debian")
    return release["VERSION_CODENAME"]


def storage_driver(scratch: Path) -> str:
    """Choose overlay where this machine can mount it, else plain copies."""
    folders = [scratch / f"try-{name}" for name in ("lower", "upper", "work", "merged")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    lower, upper, work, merged = folders
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    tried = subprocess.run([UNSHARE, "--mount", *mount], check=False, capture_output=True)
    for folder in folders:
        shutil.rmtree(folder)
    return "vfs" if tried.returncode else "overlay"


def remove(scratch: Path) -> None:
    """Remove a scratch folder, with what buildah has left mounted in it."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4] for line in mounts]
    for point in reversed([point for point in points if Path(point).is_relative_to(scratch)]):
        subprocess.run([UMOUNT, "--lazy", point], check=False)
    shutil.rmtree(scratch, ignore_errors=True)


def check_tools(base: str | None) -> None:
    """See that images can be built and run here.

    Raises:
        CannotBuildError: they can't.

    """
    if sys.platform != "linux":
        raise CannotBuildError("images are built on Linux only")
    if os.geteuid() != 0:
        raise CannotBuildError("run it as root: without it namespaces can't be mounted into")
    needed = ["buildah", *([] if base else ["mmdebstrap"])]
    if missing := " ".join(tool for tool in needed if shutil.which(tool) is None):
        raise CannotBuildError(f"on Debian and Ubuntu: apt-get install {missing}")
    namespaces = [UNSHARE, "--mount", "--pid", "--fork", "true"]
    tried = subprocess.run(namespaces, check=False, capture_output=True, text=True)
    if tried.returncode:
        raise CannotBuildError(f"no namespaces here: {tried.stderr.strip()}")
