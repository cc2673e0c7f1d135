"""What has to hold of the images while they run, against a real PostgreSQL and a real Valkey."""

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg2  # type: ignore[import-untyped]  # no type information is published
from servers import family, free_port, postgres, valkey

from scripts.image_container import Container, Image

READY_TIMEOUT_S = 120
JOB_TIMEOUT_S = 60
WRITES = "import sys\ntry: open('/opt/written', 'w')\nexcept OSError as e: sys.exit(e.errno)"
READ_ONLY = 30  # EROFS


def claim(text: str, *, holds: bool, shown: object = "") -> None:
    """Print a claim that holds; end with one that doesn't.

    Raises:
        SystemExit: it doesn't hold; with what was found instead.

    """
    if not holds:
        sys.exit(f"image-check: FAILED: {text}: {shown}")
    print(f"image-check: {text}", flush=True)


@dataclass(kw_only=True)
class Fleet:
    """The servers, and where the containers of this check keep their files."""

    folder: Path
    database_url: str
    redis_url: str
    admin_key: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=free_port)
    worker_port: int = field(default_factory=free_port)

    def environment(self) -> dict[str, str]:
        """Return what an operator sets."""
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "ADMIN_KEY": self.admin_key,
            "PORT": str(self.port),
            "WORKER_METRICS_PORT": str(self.worker_port),
        }

    def client(self) -> httpx2.Client:
        """Return a client with the admin's key."""
        return httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {self.admin_key}"},
            timeout=60,
            trust_env=False,
        )


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """Start PostgreSQL and Valkey of this check's own."""
    with postgres() as database, valkey() as broker:
        yield Fleet(folder=folder, database_url=database.url, redis_url=broker.url)


def wait_for(what: str, answers: Callable[[], bool], container: Container, limit_s: float) -> float:
    """Wait until something answers; return the seconds that took."""
    started = time.monotonic()
    while time.monotonic() < started + limit_s:
        if container.process.poll() is not None:
            break
        try:
            if answers():
                return time.monotonic() - started
        except httpx2.TransportError:  # it doesn't listen yet
            pass
        time.sleep(0.05)  # between two questions to another process there is nothing to wait on
    sys.exit(f"image-check: FAILED: {what}: not within {limit_s} s\n{container.log}")


def check_confinement(name: str, image: Image, container: Container, fleet: Fleet) -> None:
    """Check how little the process may do."""
    ids = container.status("Uid").split()
    claim(f"{name} runs as 10001, process 1", holds=set(ids) == {"10001"}, shown=ids)
    held = {container.status(field) for field in ("CapPrm", "CapEff", "CapBnd", "CapAmb")}
    claim(f"{name} has no capability", holds={int(v, 16) for v in held} == {0}, shown=held)
    claim(f"{name} can gain no privilege", holds=container.status("NoNewPrivs") == "1")
    status, said = image.call(fleet.folder / "writes", "python", "-c", WRITES)
    claim(f"{name} has a read-only root", holds=status == READ_ONLY, shown=(status, said))


def check_health(name: str, image: Image, check: list[str], fleet: Fleet) -> None:
    """Run the image's own health check beside it."""
    status, said = image.call(fleet.folder / "health", *check[1:], **fleet.environment())
    claim(f"{name}'s health check says healthy", holds=status == 0, shown=said)


def check_answers(client: httpx2.Client) -> None:
    """Ask for each kind of answer."""
    refused = httpx2.post(f"{client.base_url}/predict", json={"text": "x"}, trust_env=False)
    claim("without a key it answers 401", holds=refused.status_code == httpx2.codes.UNAUTHORIZED)
    found = client.post("/predict", json={"text": "A film that stays with you for days."}).json()
    claim("/predict answers", holds=found.get("label") == "POSITIVE", shown=found)
    question = {"query": "What is the capital of France?", "max_tokens": 16, "temperature": 0}
    lines = [
        json.loads(line)
        for line in client.post("/chat/stream", json=question).text.split("\n")
        if line
    ]
    told = "".join(line["token"] for line in lines)
    ended = lines[-1].get("finish_reason") in {"stop", "length"}
    claim(f"/chat/stream answers {told!r}", holds="Paris" in told and ended, shown=lines)


def check_job(client: httpx2.Client, worker: Container) -> None:
    """Have documents embedded by the worker, and search them."""
    texts = {"cats": "Cats sleep most of the day.", "rates": "The bank raised its interest rates."}
    documents = [{"id": name, "text": text} for name, text in texts.items()]
    given = client.post("/embed-batch", json={"documents": documents})
    claim(
        "/embed-batch takes a job",
        holds=given.status_code == httpx2.codes.ACCEPTED,
        shown=given.text,
    )
    address = given.headers["Location"]

    def is_done() -> bool:
        return client.get(address).json()["status"] not in {"queued", "running"}

    took = wait_for("the job", is_done, worker, JOB_TIMEOUT_S)
    job = client.get(address).json()
    claim(f"the worker does it ({took:.1f} s)", holds=job["status"] == "succeeded", shown=job)
    found = client.post("/search", json={"query": "animals at rest", "top_k": 1}).json()
    claim("/search finds it", holds=found["results"][0]["id"] == "cats", shown=found)


def stop(name: str, container: Container) -> None:
    """End a container as an engine does."""
    started = time.monotonic()
    status = container.stop()
    took = time.monotonic() - started
    claim(f"{name} ends with 0 on SIGTERM ({took:.1f} s)", holds=status == 0, shown=container.log)


def logged_rows(database_url: str) -> int:
    """Count the answers that were logged."""
    connection = psycopg2.connect(database_url)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM predictions")
        return int(cursor.fetchone()[0])
    finally:
        connection.close()


def memory_mib(container: Container) -> float:
    """Return the memory of a container's processes; pages that they share count once."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family(container.pid)]
    lines = [line for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:")]
    return sum(int(line.split()[1]) for line in lines) / 1024


def run_alone(api: Image, folder: Path) -> None:
    """Run api with a key and nothing else: SQLite, and a Valkey and a worker of its own."""
    alone = Fleet(folder=folder / "alone", database_url="", redis_url="")
    with (
        api.running(alone.folder, ADMIN_KEY=alone.admin_key, PORT=str(alone.port)) as container,
        alone.client() as client,
    ):
        wait_for("ready alone", lambda: client.get("/ready").is_success, container, READY_TIMEOUT_S)
        claim("api is ready without other servers", holds=True)
        check_job(client, container)
        stop("api", container)


def run_images(api: Image, worker: Image, checks: Mapping[str, list[str]], fleet: Fleet) -> None:
    """Run both images and ask them."""
    settings = fleet.environment()
    status, said = api.call(fleet.folder / "migrate", "app", "db", "upgrade", **settings)
    claim("app db upgrade migrates PostgreSQL", holds=status == 0, shown=said)
    with (
        api.running(fleet.folder / "api", **settings) as serving,
        worker.running(fleet.folder / "worker", **settings) as working,
        fleet.client() as client,
    ):
        took = wait_for("ready", lambda: client.get("/ready").is_success, serving, READY_TIMEOUT_S)
        claim(f"api is ready on a read-only root ({took:.1f} s)", holds=True)
        metrics = f"http://127.0.0.1:{fleet.worker_port}/metrics"
        wait_for("worker", lambda: client.get(metrics).is_success, working, READY_TIMEOUT_S)
        for name, image, container in (("api", api, serving), ("worker", worker, working)):
            check_confinement(name, image, container, fleet)
            check_health(name, image, checks[name], fleet)
        check_answers(client)
        check_job(client, working)
        for name, container in (("api", serving), ("worker", working)):
            print(f"image-check: {name} holds {memory_mib(container):.0f} MiB")
        stop("worker", working)
        stop("api", serving)
    rows = logged_rows(fleet.database_url)
    claim(f"its answers are in the log ({rows})", holds=rows >= 2, shown=rows)  # noqa: PLR2004
