"""The OpenAPI document: complete, true, and shown without internet."""

import asyncio
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from openapi_spec_validator import validate
from process import APP, service
from serving import FAKE, serving

from app.http import api_document
from app.http.openai_schemas import OpenAiError

CONFIG = Path(__file__).parent / "schemathesis.toml"
NOT_JSON = {
    "get /metrics",
    "post /chat/stream",
    "get /predictions/export",
    "get /jobs/{job_id}/events",
    "get /v1/files/{file_id}/content",
}
FORMS_ALONE = {"post /v1/files"}
METHODS = {"get", "post", "put", "delete", "patch"}


async def document(client: AsyncClient) -> dict[str, Any]:
    content: dict[str, Any] = (await client.get("/openapi.json")).json()
    return content


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in spec["paths"].items():
        for method in METHODS & set(item):
            yield f"{method} {path}", item[method]


async def test_the_document_is_valid(client: AsyncClient) -> None:
    validate(await document(client))


async def test_it_is_made_once_and_not_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def make(*_: Any) -> dict[str, Any]:
        threads.append(threading.get_ident())
        time.sleep(0.05)  # others ask meanwhile
        return {"paths": {}, "components": {"schemas": {}}}

    monkeypatch.setattr(api_document, "_document", make)
    async with serving(tmp_path, FAKE) as client:
        answers = await asyncio.gather(*(client.get("/openapi.json") for _ in range(3)))
    assert [answer.json()["servers"] for answer in answers] == [[{"url": "/"}]] * 3
    (thread,) = threads
    assert thread != threading.get_ident()


async def test_every_body_has_an_example(client: AsyncClient) -> None:
    spec = await document(client)
    schemas = spec["components"]["schemas"]
    for name, operation in operations(spec):
        body = operation.get("requestBody") if name not in FORMS_ALONE else None
        answers = [body] if body else []
        good = [r for status, r in operation["responses"].items() if status in {"200", "201"}]
        answers += good if name not in NOT_JSON else []
        for answer in answers:
            schema = answer["content"]["application/json"]["schema"]
            for reference in (one["$ref"] for one in schema.get("anyOf", [schema])):
                assert schemas[reference.rpartition("/")[2]].get("examples"), (name, reference)


def errors_of(operation: dict[str, Any]) -> dict[str, Any]:
    errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
    assert {"408", "413", "500"} <= set(errors), operation["summary"]
    return errors


async def test_every_error_status_has_the_problem_schema_and_an_example(
    client: AsyncClient,
) -> None:
    spec = await document(client)
    for name, operation in operations(spec):
        if "/v1/" in name:
            continue
        for status, response in errors_of(operation).items():
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in content["examples"].items():
                assert example["value"]["code"] == code
                assert str(example["value"]["status"]) == status


async def test_errors_under_v1_have_openai_s_schema_and_an_example(client: AsyncClient) -> None:
    spec = await document(client)
    schema = spec["components"]["schemas"]["OpenAiError"]
    for name, operation in operations(spec):
        if "/v1/" not in name:
            continue
        errors = errors_of(operation)
        assert "422" not in errors, name
        for response in errors.values():
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/OpenAiError"}
            for code, example in content["examples"].items():
                assert example["value"]["error"]["code"] == code
                OpenAiError.model_validate(example["value"])
    assert schema["required"] == ["error"]


async def test_predict_names_every_status_that_it_can_answer(client: AsyncClient) -> None:
    spec = await document(client)
    statuses = set(spec["paths"]["/predict"]["post"]["responses"])
    assert statuses == {
        "200",
        "400",
        "401",
        "403",
        "404",
        "408",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
        "504",
    }


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_load_nothing_from_elsewhere(client: AsyncClient, page: str) -> None:
    html = (await client.get(page)).text
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
    files = re.findall(r"(?:src|href)=\"([^\"]+)\"", html)
    assert files
    for file in files:
        answer = await client.get(file)
        assert answer.status_code == 200, file
        assert len(answer.content) > 1000


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_are_framed_by_nobody(client: AsyncClient, page: str) -> None:
    headers = (await client.get(page)).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


async def test_pages_of_other_origins_may_call_only_where_that_is_set(tmp_path: Path) -> None:
    asked = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization",
    }
    async with serving(tmp_path) as client:
        closed = await client.options("/predict", headers=asked)
        plain = await client.get("/models", headers=asked)
    assert closed.status_code == 405
    assert "access-control-allow-origin" not in plain.headers
    origins = "https://page.example, https://other.example"
    async with serving(tmp_path, cors_origins=origins) as client:
        opened = await client.options("/predict", headers=asked)
        foreign = await client.options("/predict", headers=asked | {"Origin": "https://evil"})
        answer = await client.get("/models", headers={"Origin": "https://page.example"})
        head = asked | {"Access-Control-Request-Method": "HEAD"}
        assert (await client.options("/models", headers=head)).status_code == 200
    assert opened.status_code == 200
    assert opened.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in opened.headers
    assert "access-control-allow-origin" not in foreign.headers
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Location", "Retry-After", "X-RateLimit-Remaining", "X-Request-ID"} <= set(exposed)


@pytest.mark.system
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    # Under the name that the document's examples use, so that it tests more than 404.
    models = FAKE.replace("dummy", "sentiment")
    for name, task in (("minilm", "embedding"), ("smollm2", "chat")):
        models += (
            f'[[models]]\nname = "{name}"\ntask = "{task}"\nengine = "fake"\nrequired = true\n'
        )
    with service(tmp_path, models, log_level="error", auth="off") as running:
        running.wait_ready()
        found = subprocess.run(
            [
                *(
                    APP.parent / "schemathesis",
                    "--config-file",
                    CONFIG,
                    "run",
                    f"{running.url}/openapi.json",
                ),
                *("--max-examples", "20", "--seed", "1", "--workers", "1"),
                *("--no-color", "--request-timeout", "10"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert found.returncode == 0, found.stdout[-8000:]
    # It warns of ids that it can't guess.
    passed = re.search(r"(\d+) generated, \1 passed|No issues found", found.stdout)
    assert passed, found.stdout[-3000:]
