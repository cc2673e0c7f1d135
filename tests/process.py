"""Starts the real service as a process of its own, as `make serve` does."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

# A first start converts the default models.
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 40
LOG_TIMEOUT_S = 10
LOADING = ("waiting", "loading")
KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_CONFIG", "PYTHONPATH"}
# For processes whose code other tests run in their own: measuring coverage doubles their time.
UNMEASURED = {"coverage_process_config": ""}
APP = Path(sys.executable).parent / "app"


@dataclass
class Service:
    """A running service: where it listens, and its process."""

    url: str
    process: subprocess.Popen[str]
    log_file: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> float:
        """Ask /ready until it says 200; return the seconds that took."""
        started = time.monotonic()
        while time.monotonic() < started + timeout_s:
            # Silent for 10 s, while it loads beside much else, is no failure.
            with suppress(httpx2.TimeoutException):
                if httpx2.get(f"{self.url}/ready", timeout=10).status_code == 200:
                    return time.monotonic() - started
            time.sleep(0.02)  # between two questions to another process there is nothing to wait on
        raise TimeoutError(self.log)

    def wait_loaded(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until no model is loading: some that /ready does not wait for take the cores."""
        until = time.monotonic() + timeout_s
        while any(model["state"] in LOADING for model in self._models()):
            if time.monotonic() > until:
                raise TimeoutError(self.log)
            time.sleep(0.2)  # each question takes processor time, which a model is loaded with

    def _models(self) -> list[dict[str, Any]]:
        return list(httpx2.get(f"{self.url}/models", timeout=10).json()["models"])

    def wait_logged(self, text: str, timeout_s: float = LOG_TIMEOUT_S) -> str:
        """Return the log once it has this text: a thread writes the lines a moment later."""
        until = time.monotonic() + timeout_s
        while text not in (log := self.log):
            if time.monotonic() > until:
                raise TimeoutError(f"{text} isn't in {log}")
            time.sleep(0.02)  # another process writes it
        return log

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)


def environment(folder: Path, **settings: Any) -> dict[str, str]:
    """The tests' environment without settings of the person who runs them."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT}
    given = {name.upper(): str(value) for name, value in settings.items()}
    # A Valkey and a worker for each service would take what tests measure.
    return {**kept, "DATA_DIR": str(folder / "data"), "JOBS": "off", **given}


def announced(process: subprocess.Popen[str], log_file: Path, timeout_s: float) -> str:
    """Return the address that a service logs, once it listens."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        has_ended = process.poll() is not None
        for line in log_file.read_text(encoding="utf-8").splitlines():
            is_address = line.startswith("ml-api: ") or '"event": "listening"' in line
            if is_address and (found := re.search(r"http://[^\s\"]+:\d+", line)):
                return found[0]
        if has_ended:
            break
        time.sleep(0.02)  # another process writes it
    raise AssertionError(f"no address: {log_file.read_text(encoding='utf-8')}")


def run(folder: Path, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `app` with these arguments in `folder`, to its end."""
    return subprocess.run(
        [APP, *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


@contextmanager
def service(folder: Path, models: str | None = None, **settings: Any) -> Iterator[Service]:
    """Run `app serve` in `folder`, on a free port or on `port`; end it when the block does."""
    port = settings.pop("port", 0)
    if models is not None:
        (folder / "models.toml").write_text(models, encoding="utf-8")
        settings["models_file"] = folder / "models.toml"
    log_file = folder / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [APP, "serve", "--port", str(port)],
            cwd=folder,
            env=environment(folder, **settings),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        url = announced(process, log_file, START_TIMEOUT_S)
        yield Service(url=url, process=process, log_file=log_file)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()
