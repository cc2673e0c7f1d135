"""What the service was told in confidence is found in nothing that it says."""

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from process import APP, Service, environment, service
from serving import FAKE

ADMIN = "an-admin-key-in-confidence"
JSON = {"Content-Type": "application/json"}
TEXT = "a text that was typed in confidence"


def test_no_secret_is_in_an_answer_a_log_line_or_the_process_list(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    migrate(tmp_path, postgres_url)
    given = {"database_url": postgres_url, "redis_url": redis_url, "admin_key": ADMIN}
    with service(tmp_path, FAKE, auth="required", log_level="debug", **given) as running:
        running.wait_ready()
        key = make_key(running)
        said = [*answers(running, key), command_line(running)]
        assert running.stop() == 0
        said.append(running.log)
    passwords = [urlsplit(url).password for url in (postgres_url, redis_url)]
    assert None not in passwords
    for secret in (ADMIN, key, TEXT, *passwords):
        assert [text for text in said if secret in text] == []  # type: ignore[operator]  # as asserted


def migrate(folder: Path, url: str) -> None:
    env = environment(folder, database_url=url)
    subprocess.run([APP, "db", "upgrade"], env=env, cwd=folder, check=True, capture_output=True)


def make_key(running: Service) -> str:
    wanted = {"name": "web", "scopes": ["predict"], "limit": "100/minute"}
    answer = httpx2.post(f"{running.url}/keys", json=wanted, headers=bearer(ADMIN), timeout=30)
    key: str = answer.json()["key"]
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def answers(running: Service, key: str) -> list[str]:
    """Ask for whatever may tell too much: pages, lists, and errors of every kind."""
    good, wrong = bearer(key), bearer(key[:-1] + "!")
    with httpx2.Client(base_url=running.url, timeout=30) as client:
        asked = [
            *(client.get(path) for path in ("/docs", "/redoc", "/openapi.json", "/metrics")),
            *(client.get(path, headers=bearer(ADMIN)) for path in ("/keys", "/predictions")),
            *(client.get(path) for path in ("/ready", "/health", f"/nothing?api_key={key}")),
            client.post("/predict", json={"text": TEXT}, headers=wrong),
            client.post("/predict", json={"text": TEXT, "top_k": "many"}, headers=good),
            client.post("/predict", json={"text": f"poison {TEXT}"}, headers=good),
            client.post("/predict", content=f'{{"text": "{TEXT}', headers=good | JSON),
            client.post("/chat", json={"query": TEXT}, headers=good),
        ]
    statuses = [answer.status_code for answer in asked[-6:]]
    assert statuses == [404, 401, 422, 500, 400, 403]
    return [f"{answer.headers} {answer.text}" for answer in asked]


def command_line(running: Service) -> str:
    """Return what everybody on the machine can read of the process."""
    return Path(f"/proc/{running.process.pid}/cmdline").read_text(encoding="utf-8")
