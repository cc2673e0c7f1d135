"""docs/howto/add-a-route.md: its code, taken from the page and asked by a client."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import linters
import pytest
from httpx2 import AsyncClient
from serving import FAKE, make_settings, running

import app.features
from app.main import FEATURES, TASKS, create_app
from app.runtime.composition import Installed, find_installed

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "howto" / "add-a-route.md"
PACKAGE = "app.features.moderation"
FILE = re.compile(
    r"^`app/features/(moderation/\w+\.py)`[^\n`]*(?:\n[^\n`]+)*\n\n```python\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)
LINE = re.compile(r"^FEATURES = \((.*?)^\)", re.MULTILINE | re.DOTALL)
ADMIN = "an-admin-key-of-the-test"
WAIT_S = 10
POLL_S = 0.02  # rows are written in batches
BODY = {"text": "A comment."}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features that lie beside those of app/: the guide's."""
    for name, code in FILE.findall(GUIDE.read_text("utf-8")):
        file = tmp_path / "features" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    return tmp_path / "features"


@pytest.fixture
def parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    monkeypatch.setattr(app.features, "__path__", [*app.features.__path__, str(folder)])
    yield find_installed(TASKS, ("access", "prediction_log", "moderation"))
    for module in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[module]


@asynccontextmanager
async def serving(tmp_path: Path, parts: Installed, **settings: Any) -> AsyncIterator[AsyncClient]:
    given = {"auth": "required", "admin_key": ADMIN, "default_limit": "1000/minute"} | settings
    made = create_app(make_settings(tmp_path, FAKE, **given), parts=parts)
    async with running(made) as client:
        yield client


async def key_for(client: AsyncClient, **wanted: Any) -> dict[str, str]:
    made = await client.post("/keys", json={"name": "k"} | wanted, headers=bearer(ADMIN))
    return bearer(made.json()["key"])


async def logged(client: AsyncClient) -> list[dict[str, Any]]:
    page = await client.get("/predictions", headers=bearer(ADMIN))
    rows: list[dict[str, Any]] = page.json()["predictions"]
    return rows


async def test_the_route_answers_and_the_log_has_a_row_of_it(
    tmp_path: Path, parts: Installed
) -> None:
    async with serving(tmp_path, parts) as client:
        key = await key_for(client, scopes=["predict"])
        answer = await client.post("/moderate", json=BODY, headers=key)
        failed = await client.post("/moderate", json={"text": "poison"}, headers=key)
        async with asyncio.timeout(WAIT_S):
            while len(rows := await logged(client)) < 2:
                await asyncio.sleep(POLL_S)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"allowed", "score"}
    assert answer.json()["allowed"] is (rows[1]["label"] != "NEGATIVE")
    assert (rows[1]["task"], rows[1]["model"]) == ("text-classification", "dummy")
    assert rows[1]["status"] == 200
    assert (failed.status_code, failed.json()["code"]) == (500, "inference_failed")
    assert (rows[0]["status"], rows[0]["error"]) == (500, "inference_failed")


async def test_the_route_refuses_as_its_table_says(tmp_path: Path, parts: Installed) -> None:
    async with serving(tmp_path, parts) as client:
        unknown = await client.post("/moderate", json=BODY)
        other = await key_for(client, scopes=["embed"])
        forbidden = await client.post("/moderate", json=BODY, headers=other)
        small = await key_for(client, scopes=["predict"], limit="1/minute")
        invalid = await client.post("/moderate", json={"text": ""}, headers=small)
        limited = await client.post("/moderate", json=BODY, headers=small)
        late = await client.post(
            "/moderate", json=BODY, headers=bearer(ADMIN) | {"X-Request-Timeout-Ms": "0"}
        )
        plain = await client.post("/moderate", content=b"text", headers=bearer(ADMIN))
    assert (unknown.status_code, forbidden.status_code) == (401, 403)
    assert (invalid.status_code, limited.status_code) == (422, 429)
    assert invalid.json()["errors"][0]["loc"] == ["body", "text"]
    assert (late.status_code, plain.status_code) == (422, 415)


async def test_openapi_has_the_route_with_its_errors(tmp_path: Path, parts: Installed) -> None:
    async with serving(tmp_path, parts) as client:
        document = (await client.get("/openapi.json")).json()
    route = document["paths"]["/moderate"]["post"]
    wanted = {"200", "400", "401", "403", "415", "422", "429", "500", "503", "504"}
    assert wanted <= set(route["responses"])
    assert route["security"]
    assert "unauthorized" in str(route["responses"]["401"])


async def test_the_feature_can_be_left_out(tmp_path: Path, parts: Installed) -> None:
    async with serving(tmp_path, parts, features="access,prediction_log") as client:
        answer = await client.post("/moderate", json=BODY, headers=bearer(ADMIN))
    assert answer.status_code == 404


def test_the_guide_lists_the_features_of_app_and_its_own_behind_them() -> None:
    (block,) = LINE.findall(GUIDE.read_text("utf-8"))
    *listed, added = re.findall(r'"(\w+)"', block)
    assert added == "moderation"
    assert set(listed) <= set(FEATURES)  # a project has features of its own besides


def test_the_code_of_the_guide_is_as_lint_wants_it(folder: Path) -> None:
    ruff = linters.tool("ruff")  # INP001 looks for the folder, which isn't there
    files = sorted(folder.rglob("*.py"))
    assert [file.name for file in files] == ["__init__.py", "feature.py", "routes.py"]
    for file in files:
        name = f"app/features/moderation/{file.name}"
        for command in (["check", "--ignore", "INP001"], ["format", "--check"]):
            done = subprocess.run(
                [ruff, *command, "--stdin-filename", name, "-"],
                check=False,
                capture_output=True,
                cwd=ROOT,
                input=file.read_text("utf-8"),
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
