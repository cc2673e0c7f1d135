"""Make clients from the OpenAPI document of a running service, and call it with four of them.

Java, Go and C# clients are made and not compiled. What it needs is in an environment of its own:
`make generators-check`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
from process import service

from scripts.ending import clean_up_on_sigterm

CALLERS = Path(__file__).parent / "generators"
MADE_ONLY = ("java", "go", "csharp")
LIMIT_S = 300
# The names under which the document's examples know their models.
MODELS = """
[[models]]
name = "sentiment"
engine = "fake"
default = true
required = true

[[models]]
name = "minilm"
task = "embedding"
engine = "fake"
default = true
required = true

[[models]]
name = "smollm2"
task = "chat"
engine = "fake"
default = true
required = true
"""
COMPILE = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")


class FailedError(Exception):
    """A command failed; its output is the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where the tools are, and what they work on.

    Args:
        venv: of the generators; `node` in it has what npm installed.
        folder: to work in.
        url: of the service.

    """

    venv: Path
    folder: Path
    url: str

    @property
    def document(self) -> Path:
        """The OpenAPI document."""
        return self.folder / "openapi.json"

    def run(
        self, *command: str | Path, folder: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Run a command of the environment.

        Raises:
            FailedError: its status isn't 0, or it took too long.

        """
        name = str(command[0])
        path = f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"  # one of them wants ruff
        places = (self.venv / "bin" / name, self.venv / "node" / "node_modules" / ".bin" / name)
        program = next((place for place in places if place.exists()), name)
        try:
            done = subprocess.run(
                [program, *command[1:]],
                cwd=folder or self.folder,
                env={**os.environ, "NO_COLOR": "1", "PATH": path, **(env or {})},
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            raise FailedError(f"{name} took more than {LIMIT_S} s") from None
        if done.returncode:
            raise FailedError(f"{done.stdout}\n{done.stderr}"[-4_000:])

    def generate(self, language: str, *options: str) -> Path:
        """Make a client with openapi-generator; return its folder."""
        made = self.folder / language
        command = ("openapi-generator-cli", "generate", "-g", language)
        self.run(*command, "-i", self.document, "-o", made, *options)
        return made

    def compile(self, folder: Path) -> None:
        """Compile the caller in a folder, and call the service with it."""
        (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
        packages = folder / "node_modules"
        packages.symlink_to((self.venv / "node" / "node_modules").absolute())
        self.run("tsc", *COMPILE, "--outDir", "built", "caller.ts", folder=folder)
        self.run("node", "built/caller.js", self.url, folder=folder)


def lint_with_redocly(bench: Bench) -> None:
    """Lint; its warnings are told, and no failure."""
    config = CALLERS / "redocly.yaml"
    bench.run("redocly", "lint", bench.document, "--config", config)


def lint_with_spectral(bench: Bench) -> None:
    """Lint; its warnings are told, and no failure."""
    bench.run("spectral", "lint", bench.document, "--ruleset", CALLERS / "spectral.yaml")


def call_with_openapi_generator(bench: Bench) -> None:
    """Make a Python client, and call with it."""
    made = bench.generate("python")
    caller = CALLERS / "call_openapi_generator.py"
    bench.run("python", caller, bench.url, env={"PYTHONPATH": str(made)})


def call_with_openapi_python_client(bench: Bench) -> None:
    """Make a Python client, and call with it."""
    made = bench.folder / "python-client"
    bench.run(
        *("openapi-python-client", "generate", "--path", bench.document, "--meta", "none"),
        *("--output-path", made / "ml_api_client", "--fail-on-warning"),
    )
    caller = CALLERS / "call_openapi_python_client.py"
    bench.run("python", caller, bench.url, env={"PYTHONPATH": str(made)})


def call_with_typescript_fetch(bench: Bench) -> None:
    """Make a TypeScript client, compile it, and call with it."""
    folder = bench.folder / "typescript"
    folder.mkdir()
    made = bench.generate(
        *("typescript-fetch", "--additional-properties", "importFileExtension=.js"),
        # It imports types of forms (`/classify-image`), and without this makes none.
        *("--global-property", "skipFormModel=false"),
    )
    shutil.copytree(made / "src" if (made / "src").exists() else made, folder / "client")
    shutil.copy(CALLERS / "call_typescript_fetch.ts", folder / "caller.ts")
    bench.compile(folder)


def call_with_openapi_typescript(bench: Bench) -> None:
    """Make types, and call with them."""
    folder = bench.folder / "types"
    folder.mkdir()
    # Else a field with a default is one that a request must have.
    types = ("--default-non-nullable", "false", "--output", folder / "client.d.ts")
    bench.run("openapi-typescript", bench.document, *types)
    shutil.copy(CALLERS / "call_openapi_typescript.ts", folder / "caller.ts")
    bench.compile(folder)


def make_with(language: str) -> Callable[[Bench], None]:
    """Return the check that only makes a client."""

    def make(bench: Bench) -> None:
        bench.generate(language)

    return make


CHECKS: dict[str, Callable[[Bench], None]] = {
    "redocly": lint_with_redocly,
    "spectral": lint_with_spectral,
    "openapi-generator python": call_with_openapi_generator,
    "openapi-python-client": call_with_openapi_python_client,
    "openapi-generator typescript-fetch": call_with_typescript_fetch,
    "openapi-typescript": call_with_openapi_typescript,
    **{f"openapi-generator {language}": make_with(language) for language in MADE_ONLY},
}


def check(bench: Bench, names: Sequence[str]) -> bool:
    """Run the checks and print a line for each; return whether all went well."""
    is_good = True
    for name in names:
        try:
            CHECKS[name](bench)
        except FailedError as failure:
            is_good = False
            print(f"✗ {name}\n{failure}", flush=True)
        else:
            print(f"✓ {name}", flush=True)
    return is_good


def main() -> None:
    """Serve fake models, and run all checks or those named."""
    clean_up_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHECKS)}; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="generators-") as folder:
        served_from = Path(folder) / "service"
        served_from.mkdir()
        with service(served_from, MODELS, jobs="on", auth="off") as served:
            served.wait_ready()
            bench = Bench(venv=arguments.venv.absolute(), folder=Path(folder), url=served.url)
            document = httpx2.get(f"{served.url}/openapi.json", timeout=LIMIT_S).json()
            bench.document.write_text(json.dumps(document, indent=1), encoding="utf-8")
            is_good = check(bench, arguments.names or tuple(CHECKS))
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
