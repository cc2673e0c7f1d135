"""Routes by a plan answer as they do by FastAPI."""

import json
import random
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, Header, Query
from fastapi.routing import iter_route_contexts
from httpx2 import AsyncClient, Response
from pydantic import BaseModel
from serving import FAKE, FAKE_EMBEDDER, make_app, running

from app.http import json_route
from app.http.guard import get_access
from app.http.json_route import JsonHandler, JsonRoute

ADMIN = "admin-key-of-this-test-0123456789"
MODELS = FAKE + FAKE_EMBEDDER
REQUESTS = 2_000
SEED = 16
LIMIT = 150
SECONDS = re.compile(r"\d+ s")  # some pass between the two ways
KEPT = ("content-type", "allow", "connection", "x-ratelimit-limit", "x-ratelimit-remaining")
PATHS = ("/predict", "/predict/dummy", "/predict/none", "/predict-batch", "/embed")
TEXTS: tuple[Any, ...] = (
    "good",
    "a film",
    "poison",
    "",
    "x" * 2_001,
    1,
    None,
    ["a"],
    "\ud800",
    "é",
)
EXTRAS: tuple[dict[str, Any], ...] = (
    *({}, {}, {}, {"top_k": 1}, {"top_k": 0}, {"top_k": "1"}, {"model_name": "dummy"}),
    *({"model_name": "none"}, {"model_name": "vectors"}, {"other": 1}),
)
# Each as often as it stands here; the limit of "limited" is reached on the way.
KEYS = ("admin", "admin", "admin", "limited", "none", "unknown", "empty")
HEADERS: tuple[dict[str, str], ...] = (
    *({}, {}, {}, {"X-Request-Timeout-Ms": "5000"}, {"x-request-timeout-ms": "0"}),
    *({"X-Request-Timeout-Ms": "soon"}, {"Content-Type": "text/plain"}, {"Content-Type": ""}),
    *({"Content-Type": "application/problem+json"}, {"Authorization": "Basic x"}),
)
BODIES = (b"", b"{", b"[]", b'{"text": NaN}', b'{"text":"a","text":"b"}', b"\xff", b'"a"', b"null")


def make_request(draw: random.Random) -> dict[str, Any]:
    """Make a request that is good or bad in one way or several."""
    path = draw.choice(PATHS)
    text = draw.choice(TEXTS)
    content = {"text": text} if path.startswith("/predict") else {}
    if path in {"/predict-batch", "/embed"}:
        content = {"texts": draw.choice([[text], [text, "good"], [], "good", ["a"] * 257])}
    headers = {"Content-Type": "application/json"} | draw.choice(HEADERS)
    request = {"url": path, "headers": headers, "method": "POST", "key": draw.choice(KEYS)}
    if draw.random() < 0.1:
        return request | {"content": draw.choice(BODIES)}
    if draw.random() < 0.05:
        return request | {"method": draw.choice(["GET", "PUT", "HEAD"])}
    body = json.dumps(content | draw.choice(EXTRAS), ensure_ascii=True).encode()
    return request | {"content": body}


def answered(response: Response) -> tuple[Any, ...]:
    """Return what a client sees, but for what differs from request to request."""
    body = response.json() if response.content else None
    if isinstance(body, dict):
        body.pop("request_id", None)
        body.pop("timestamp", None)
        if response.status_code == 429:
            body["detail"] = SECONDS.sub("", body["detail"])
        for result in body.get("results", ()):
            result.pop("prediction_id", None)
    headers = [response.headers.get(name) for name in KEPT]
    return response.status_code, body, *headers, "retry-after" in response.headers


class Way:
    """A service with its keys."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._keys = {"admin": ADMIN, "unknown": "mlk_" + "0" * 12 + "_" + "a" * 43, "empty": ""}

    async def make_key(self) -> None:
        """Make the key that has a limit."""
        body = {"name": "limited", "scopes": ["predict", "embed"], "limit": f"{LIMIT}/day"}
        made = await self._client.post("/keys", json=body, headers={"X-API-Key": ADMIN})
        self._keys["limited"] = made.json()["key"]

    async def send(self, request: dict[str, Any]) -> tuple[Any, ...]:
        """Send one request; return what its client sees."""
        sent = dict(request)
        key = self._keys.get(sent.pop("key"))
        sent["headers"] = sent["headers"] | ({} if key is None else {"X-API-Key": key})
        return answered(await self._client.request(**sent))


async def test_2000_requests_are_answered_alike_both_ways(tmp_path: Path) -> None:
    settings = {"auth": "required", "admin_key": ADMIN, "limits": "on"}
    folders = tmp_path / "direct", tmp_path / "usual"
    for folder in folders:
        folder.mkdir()
    direct, usual = [make_app(folder, MODELS, **settings) for folder in folders]
    usual.dependency_overrides[get_access] = get_access  # any one: plans aren't used then
    draw = random.Random(SEED)  # noqa: S311
    statuses = set()
    async with running(direct) as one, running(usual) as other:
        ways = Way(one), Way(other)
        for way in ways:
            await way.make_key()
        for number in range(REQUESTS):
            request = make_request(draw)
            quick, slow = [await way.send(request) for way in ways]
            assert quick == slow, (number, request)
            statuses.add(quick[0])
    assert statuses >= {200, 400, 401, 404, 405, 415, 422, 429, 500}


# What FastAPI does, and a plan doesn't.
class Body(BaseModel):
    text: str


async def of_a_cookie(a: Annotated[str, Cookie()] = "") -> str:
    return a


def in_a_thread() -> str:
    return ""


async def with_an_end() -> Any:
    yield ""


@pytest.mark.parametrize("needed", [of_a_cookie, in_a_thread, with_an_end])
def test_a_route_with_another_kind_of_dependency_has_no_plan(needed: Any) -> None:
    router = APIRouter(route_class=JsonRoute)

    async def answer(body: Body, _: Annotated[str, Depends(needed)]) -> Body:
        return body

    router.add_api_route("/", answer, methods=["POST"])
    assert plan_of(router.routes[0]) is None


def test_a_route_with_another_kind_of_parameter_has_no_plan() -> None:
    router = APIRouter(route_class=JsonRoute)

    async def of_a_query(body: Body, a: Annotated[str, Query()] = "") -> Body:
        return Body(text=body.text + a)

    async def of_a_needed_header(body: Body, a: Annotated[str, Header()]) -> Body:
        return Body(text=body.text + a)

    async def of_headers(body: Body, a: Annotated[list[str], Header()] = []) -> Body:  # noqa: B006
        return Body(text=body.text + str(a))

    async def of_two_bodies(body: Body, other: Body) -> Body:
        return Body(text=body.text + other.text)

    async def without_a_model(body: Body) -> Any:
        return body

    def in_a_thread_itself(body: Body) -> Body:
        return body

    for path, endpoint in (
        ("/query", of_a_query),
        ("/header", of_a_needed_header),
        ("/headers", of_headers),
        ("/bodies", of_two_bodies),
        ("/model", without_a_model),
        ("/thread", in_a_thread_itself),
    ):
        router.add_api_route(
            path, endpoint, methods=["POST"], response_model=None if path == "/model" else Body
        )
    assert [route for route in router.routes if plan_of(route)] == []


def plan_of(route: Any) -> Any:
    handler = route.get_route_handler().__self__
    assert isinstance(handler, JsonHandler)
    return handler.plan


def test_the_hot_routes_have_a_plan(tmp_path: Path) -> None:
    """It is made of what FastAPI's own handler holds, which another FastAPI may hold otherwise."""
    app = make_app(tmp_path, MODELS)
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    planned = {route.path for route in routes if isinstance(route, JsonRoute) and plan_of(route)}
    assert planned >= {"/predict", "/predict/{model_name}", "/predict-batch", "/embed"}


async def test_paths_of_planned_routes_are_remembered_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_route, "MAX_REMEMBERED", 2)
    more = "".join(f'[[models]]\nname = "{name}"\nengine = "fake"\n' for name in "ab")
    app = make_app(tmp_path, FAKE.replace("required", "default = true\nrequired") + more)
    async with running(app) as client:
        for path in ("/predict/none", "/predict", "/predict/a", "/predict/b", "/predict/a"):
            answer = await client.post(path, json={"text": "good"})
            assert answer.status_code == (404 if path == "/predict/none" else 200)
        conflict = {"text": "good", "model_name": "b"}
        assert (await client.post("/predict/a", json=conflict)).status_code == 409
    front: Any = app.middleware_stack
    assert list(front.routes._found) == [("POST", "/predict"), ("POST", "/predict/a")]
