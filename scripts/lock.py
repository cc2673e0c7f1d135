"""Turn the ranges of pyproject.toml into pins, and check that pins, ranges and reality agree.

`make lock` asks pip to resolve the ranges and writes requirements.txt, requirements-dev.txt,
requirements-api.txt, which is requirements.txt without what only converts models, and
requirements-tracing.txt: what the extra `tracing` adds to that, for the images.
`--check` needs no network: it walks the metadata of what is installed from the project's own
requirements and fails when a package on the way isn't pinned at the version installed, when a pin
is outside its range, or when a pin is needed by nothing.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
RUNTIME_FILE = ROOT / "requirements.txt"
DEV_FILE = ROOT / "requirements-dev.txt"
API_FILE = ROOT / "requirements-api.txt"
TRACING_FILE = ROOT / "requirements-tracing.txt"
TRACING = "tracing"
APART = frozenset({"ray"})  # of 300 MB, for `make ray-check` alone
HEADER = "# Made by `make lock` from the ranges in pyproject.toml. Don't edit.\n"
# torch pins its CUDA libraries itself; pins here would make every CPU install download them.
UNPINNED_PREFIXES = ("nvidia-", "cuda-", "triton")
# An image that holds converted models does without them; see docs/image.md.
CONVERTERS = frozenset({"peft", "protobuf", "sentencepiece", "torch", "transformers"})


def ranges() -> tuple[list[Requirement], list[Requirement]]:
    """Return the runtime requirements of pyproject.toml, and those of development.

    Tests have all extras but those for environments of their own: nobody else needs them all, so
    they are pinned there.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [e for name, e in project["optional-dependencies"].items() if name not in APART]
    runtime = [Requirement(line) for line in project["dependencies"]]
    return runtime, [Requirement(line) for extra in extras for line in extra]


def tracing() -> list[Requirement]:
    """Return the requirements of the extra that the images have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["optional-dependencies"][TRACING]]


def without_converters(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Return what serving converted models takes."""
    return [r for r in requirements if canonicalize_name(r.name) not in CONVERTERS]


def read_pins(path: Path) -> dict[str, str]:
    """Return name → version of one requirements file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [line.split(";")[0].split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, version in pins}


def resolve(requirements: Iterable[Requirement], *constraints: str) -> dict[str, str]:
    """Let pip resolve requirements into name → version, installing nothing."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--report", "-", *constraints, *map(str, requirements)]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = (item["metadata"] for item in json.loads(report)["install"])
    # A local version such as 2.13.0+cpu names a build of the index at hand, not the release.
    pins = {canonicalize_name(m["name"]): m["version"].split("+")[0] for m in found}
    return {n: v for n, v in sorted(pins.items()) if not n.startswith(UNPINNED_PREFIXES)}


def write(path: Path, pins: dict[str, str], requirements: Iterable[Requirement]) -> None:
    """Write one requirements file; a pin counts on the platforms that its range counts on."""
    markers: dict[str, str] = {
        canonicalize_name(r.name): f"; {r.marker}" for r in requirements if r.marker
    }
    lines = [f"{name}=={version}{markers.get(name, '')}\n" for name, version in pins.items()]
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{path.name}: {len(pins)} pins")


def lock() -> None:
    """Resolve and write all files."""
    runtime, dev = ranges()
    pins = resolve(runtime)
    write(RUNTIME_FILE, pins, runtime)
    both = resolve([*runtime, *dev], "-c", str(RUNTIME_FILE))
    write(DEV_FILE, {n: v for n, v in both.items() if n not in pins}, dev)
    api = resolve(without_converters(runtime), "-c", str(RUNTIME_FILE))
    write(API_FILE, api, runtime)
    traced = resolve(tracing(), "-c", str(RUNTIME_FILE), "-c", str(DEV_FILE))
    write(TRACING_FILE, {n: v for n, v in traced.items() if n not in api}, ())


def closure(roots: Iterable[Requirement]) -> dict[str, str]:
    """Walk the metadata of installed packages: every name reached → installed version."""
    reached: dict[str, str] = {}
    walked: set[tuple[str, frozenset[str]]] = set()
    queue = list(roots)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        step = (name, frozenset(requirement.extras))
        if name.startswith(UNPINNED_PREFIXES) or step in walked:
            continue
        walked.add(step)
        installed = metadata.distribution(name)
        reached[name] = installed.version.split("+")[0]
        environments = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
        children = [Requirement(line) for line in installed.requires or []]
        queue += [
            child
            for child in children
            if child.marker is None or any(map(child.marker.evaluate, environments))
        ]
    return reached


def applies(requirement: Requirement) -> bool:
    """Tell whether a requirement counts on this platform."""
    return requirement.marker is None or requirement.marker.evaluate()


def findings(roots: list[Requirement], pins: dict[str, str]) -> list[str]:
    """Compare ranges, pins and what is installed; one sentence a disagreement."""
    said = [
        f"{r.name}: pin {pins.get(canonicalize_name(r.name))} is not in the range {r.specifier}"
        for r in roots
        if pins.get(canonicalize_name(r.name), "none") not in r.specifier
    ]
    reached = closure(filter(applies, roots))
    said += [
        f"{name}: {version} is installed, the pin says {pins.get(name, 'nothing')}"
        for name, version in sorted(reached.items())
        if pins.get(name) != version
    ]
    return said + [
        f"{name}: pinned, but nothing needs it" for name in sorted(set(pins) - {*reached})
    ]


def check() -> None:
    """Exit with the findings, if there are any."""
    runtime, dev = ranges()
    pins, dev_pins = read_pins(RUNTIME_FILE), read_pins(DEV_FILE)
    said = findings(runtime, pins)
    said += [f for f in findings([*runtime, *dev], pins | dev_pins) if f not in said]
    api = findings(without_converters(runtime), read_pins(API_FILE))
    said += [f"{API_FILE.name}: {finding}" for finding in api if finding not in said]
    images = read_pins(API_FILE) | read_pins(TRACING_FILE)
    traced = findings([*without_converters(runtime), *tracing()], images)
    known = {*said, *api}
    said += [f"{TRACING_FILE.name}: {finding}" for finding in traced if finding not in known]
    if said:
        sys.exit("requirements drifted; run `make lock`:\n" + "\n".join(said))
    print(f"requirements: {len(pins)} + {len(dev_pins)} pins agree with pyproject.toml")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    if parser.parse_args().check:
        check()
    else:
        lock()
