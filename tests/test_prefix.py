"""Behind a proxy's prefix everything works, whether the proxy takes it off the paths or not."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest
from httpx2 import AsyncClient
from listening import listening
from reverse_proxy import PREFIX, proxying
from serving import FAKE, FAKE_EMBEDDER, make_app, make_settings, running, serving

from app.core.prefix import forwarded_prefix, read_prefix, without_prefix
from app.core.request_kinds import PathKinds, RequestKind
from app.errors import SettingsError
from app.main import create_app, load_settings

TRUSTED = "127.0.0.0/8"


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """How the service is published, and what is set for it."""

    strips: bool
    header: str | None = None
    root_path: str = ""


PROXIES = {
    "strips, ROOT_PATH": Proxy(strips=True, root_path=PREFIX),
    "doesn't strip, ROOT_PATH": Proxy(strips=False, root_path=PREFIX),
    "strips, header": Proxy(strips=True, header=PREFIX),
    "two proxies strip, header of both": Proxy(strips=True, header="/ml, /api/"),
    "doesn't strip, both": Proxy(strips=False, header=PREFIX, root_path=f"{PREFIX}/"),
}


@pytest.fixture(scope="module", params=PROXIES.values(), ids=list(PROXIES))
async def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    """A client of the service behind a proxy; its address has the prefix."""
    proxy: Proxy = request.param
    app = make_app(
        tmp_path_factory.mktemp("proxied"),
        FAKE + FAKE_EMBEDDER,
        root_path=proxy.root_path,
        trusted_proxies=TRUSTED,
    )
    async with (
        running(app),
        listening(app) as (_, port),
        proxying(port, strips=proxy.strips, header=proxy.header) as url,
        AsyncClient(base_url=url) as client,
    ):
        yield client


async def test_routes_answer(proxied: AsyncClient) -> None:
    answer = await proxied.post("/predict", json={"text": "Good."})
    assert (answer.status_code, answer.json()["model"]) == (200, "dummy")
    named = await proxied.post("/predict/dummy", json={"text": "Good."})
    assert named.status_code == 200
    assert (await proxied.get("/ready")).status_code == 200
    problem = await proxied.post("/v1/embeddings", json={"model": "nowhere", "input": "a"})
    assert problem.json()["error"]["code"] == "model_not_found"
    metrics = (await proxied.get("/metrics")).text
    assert 'handler="/predict/{model_name}"' in metrics
    assert PREFIX not in metrics


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc"])
async def test_what_a_page_loads_is_there(proxied: AsyncClient, page: str) -> None:
    answer = await proxied.get(page)
    files = re.findall(r"(?:src|href)=\"([^\"#]+)\"", answer.text)
    assert answer.status_code == 200
    assert files
    for file in files:
        loaded = await proxied.get(urljoin(str(answer.url), file))
        assert loaded.status_code == 200, file
        assert PREFIX in str(loaded.url)


async def test_the_document_says_where_the_service_is(proxied: AsyncClient) -> None:
    document = (await proxied.get("/openapi.json")).json()
    assert document["servers"] == [{"url": PREFIX}]


async def test_the_prefix_itself_is_redirected_to_the_page(tmp_path: Path) -> None:
    async with serving(tmp_path, root_path=PREFIX) as client:
        bare = await client.get(PREFIX)
        assert (bare.status_code, bare.headers["Location"]) == (307, f"{PREFIX}/")
        linked = await client.get(f"{PREFIX}?model=a%20b&x=%2F")
        assert linked.headers["Location"] == f"{PREFIX}/?model=a%20b&x=%2F"
        assert (await client.get(f"{PREFIX}/")).status_code == 200
        assert (await client.get("/")).status_code == 200
        assert (await client.get(f"{PREFIX}x/ready")).status_code == 404


@pytest.mark.parametrize("header", ["/elsewhere", "//evil.example", "/a b", "https://evil"])
async def test_the_header_counts_only_from_trusted_proxies_and_if_it_is_a_path(
    tmp_path: Path, header: str
) -> None:
    forwarded = {"X-Forwarded-Prefix": header}
    async with serving(tmp_path) as client:
        document = (await client.get("/openapi.json", headers=forwarded)).json()
        assert document["servers"] == [{"url": "/"}]
    if header != "/elsewhere":
        async with serving(tmp_path, trusted_proxies=TRUSTED) as client:
            document = (await client.get("/openapi.json", headers=forwarded)).json()
            assert document["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("prefix", ["ml", "/a//b", "/a b", "/..", "/a/./b", "/a?b", "//host"])
def test_what_cant_stand_before_a_path_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="ROOT_PATH: must be a path such as /ml"):
        load_settings(_env_file=None, root_path=prefix)


@pytest.mark.parametrize("prefix", ["/chat", "/v1/x", "/static", "/docs"])
def test_a_prefix_that_begins_like_a_path_of_the_service_is_refused(
    tmp_path: Path, prefix: str
) -> None:
    with pytest.raises(SettingsError, match="begins like a path of the service"):
        create_app(make_settings(tmp_path, root_path=prefix))


def test_prefixes_are_read_and_taken_off() -> None:
    assert (read_prefix("/ml/"), read_prefix("/"), read_prefix("")) == ("/ml", "", "")
    assert (forwarded_prefix("/a, /b/"), forwarded_prefix("/a,b")) == ("/a/b", None)
    assert forwarded_prefix("/a" * 150) is None
    taken = {"/ml/x": "/x", "/ml": "/", "/ml/": "/", "/mlx": "/mlx", "/x": "/x", "/ml//x": "//x"}
    assert {path: without_prefix(path, "/ml") for path in taken} == taken


def test_the_gate_knows_a_request_with_the_prefix_and_without() -> None:
    of_paths = {"/predict": RequestKind.INFERENCE, "/health": RequestKind.PROBE}
    kinds = PathKinds(of_paths, root_path="/ml")
    for path in (b"/predict", b"/ml/predict", b"/%6dl/predict"):
        assert kinds.of(path, b"POST") is RequestKind.INFERENCE
    assert kinds.of(b"/ml/health", b"GET") is RequestKind.PROBE
    assert kinds.of(b"/mlx/predict", b"POST") is RequestKind.OTHER
    assert kinds.without_prefix(b"/ml/predict") == b"/predict"
