"""Versions of a model: what the catalogue may say, who gets which, and what the answer tells."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import serving

from app.errors import CatalogError
from app.models.catalog import read_catalog
from app.models.traffic import choose

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "mood"
engine = "fake"
required = true
fake = { fail_on = "poison" }
[[models.versions]]
version = "1"
weight = 90
[[models.versions]]
version = "2"
weight = 10
fake = { fail_on = "other" }
[[models.versions]]
version = "3"
shadow = true
[[models.versions]]
version = "4"

[[models]]
name = "echo"
task = "chat"
engine = "fake"
[[models.versions]]
version = "one"
[[models.versions]]
version = "two"
fake = { delay_ms = 1 }

[[models]]
name = "only"
engine = "fake"
"""
PINNED = "X-Model-Version"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("versions"), MODELS, auth="off") as client:
        yield client


async def version_of(
    client: AsyncClient, text: str = "good", *, model: str = "mood", **headers: str
) -> str:
    answer = await client.post(f"/predict/{model}", json={"text": text}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers[PINNED]


def versions(*tables: str, entry: str = 'source = "file:a"') -> str:
    added = "".join(f"[[models.versions]]\n{table}\n" for table in tables)
    return f'[[models]]\nname = "a"\n{entry}\n{added}'


def test_a_version_has_what_its_entry_has_but_not_what_belongs_to_another_source(
    tmp_path: Path,
) -> None:
    path = tmp_path / "models.toml"
    digest = "0" * 64
    path.write_text(
        versions(
            'version = "1"',
            'version = "2"\nadapter = "b"',
            'version = "3"\nsource = "file:c"\nshadow = true',
            entry=f'source = "file:a"\nadapter = "a"\nsha256 = "{digest}"\nlabels = ["x", "y"]',
        )
    )
    catalog = read_catalog(path)
    loads = catalog.specs[0].loads
    assert [(one.name, one.source, one.adapter, one.sha256) for one in loads] == [
        ("a@1", "file:a", "a", digest),
        ("a@2", "file:a", "b", digest),
        ("a@3", "file:c", None, None),
    ]
    assert {one.labels for one in loads} == {("x", "y")}
    assert catalog.to_load("a") == catalog.to_load("a@1") == loads[0]
    assert catalog.to_load("a@4") is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (versions('version = "1"', 'version = "1"'), "two have the same name: 1"),
        (versions('version = "a b"'), "versions.0.version"),
        (versions('version = "1"\nweight = -1'), "versions.0.weight"),
        (versions('version = "1"\nweight = inf'), "versions.0.weight"),
        (versions('version = "1"\nweight = 0'), "none of them gets any traffic"),
        (versions('version = "1"\nshadow = true'), "none of them gets any traffic"),
        (versions('version = "1"\nshadow = true\nweight = 5'), "a shadow answers nobody"),
        (versions('version = "1"\ntask = "chat"'), "versions.0.task"),
        (versions('version = "1"', entry='task = "embedding"'), "vectors of two versions"),
        (
            versions('version = "1"\nadapter = "b"', entry='engine = "python"\nsource = "file:a"'),
            "'1': entry: Value error, adapter has no meaning",
        ),
    ],
)
def test_versions_that_can_t_serve_are_refused_in_words(
    tmp_path: Path, text: str, part: str
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(CatalogError, match="model 'a': ") as refused:
        read_catalog(path)
    assert part in str(refused.value)


def test_traffic_is_split_by_weight_and_only_those_move_that_have_to() -> None:
    keys = [f"caller {number}" for number in range(10_000)]

    def split(**weights: float) -> list[str]:
        return [choose(weights.items(), key) for key in keys]

    canary = split(old=90, new=10)
    assert Counter(canary)["new"] == pytest.approx(1_000, abs=100)
    assert split(old=90, new=10) == canary
    assert split(new=1, old=9) == canary
    wider = split(old=80, new=20)
    moved = {(a, b) for a, b in zip(canary, wider, strict=True) if a != b}
    assert moved == {("old", "new")}
    without = split(old=45, third=50, new=5)
    assert Counter(without)["third"] == pytest.approx(5_000, abs=150)
    assert {b for a, b in zip(canary, without, strict=True) if a != b} == {"third"}


async def test_a_session_keeps_its_version_and_the_others_are_split(client: AsyncClient) -> None:
    first = [await version_of(client, **{"X-Session-ID": f"s{n}"}) for n in range(60)]
    again = [await version_of(client, **{"X-Session-ID": f"s{n}"}) for n in range(60)]
    assert first == again
    assert set(first) == {"1", "2"}
    alone = {await version_of(client, **{"X-Request-ID": f"r{n}"}) for n in range(60)}
    assert alone == {"1", "2"}


async def test_a_request_may_name_a_version_and_answer_and_log_say_it(client: AsyncClient) -> None:
    for version in ("1", "2", "3"):
        headers = {PINNED: version, "X-Request-ID": f"pinned-{version}"}
        assert await version_of(client, **headers) == version
        await client.post(
            "/predict", json={"text": "poison", "model_name": "mood"}, headers=headers
        )
        batch = {"texts": ["a", ""], "model_name": "mood"}
        answer = await client.post("/predict-batch", json=batch, headers=headers)
        assert answer.headers[PINNED] == version
    rows: list[Any] = []
    while len(rows) < 12:
        rows = (await client.get("/predictions?model=mood&limit=1000")).json()["predictions"]
        rows = [row for row in rows if row["request_id"].startswith("pinned-")]
    assert {row["version"] for row in rows if row["request_id"] == "pinned-2"} == {"2"}
    failed = {row["version"] for row in rows if row["error"] == "inference_failed"}
    assert failed == {"1", "3"}  # the second one's options are its own
    unknown = await client.post("/predict/mood", json={"text": "a"}, headers={PINNED: "9"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_version_not_found")
    assert PINNED not in unknown.headers
    unloaded = await client.post("/predict/mood", json={"text": "a"}, headers={PINNED: "4"})
    assert (unloaded.status_code, unloaded.json()["code"]) == (503, "model_unavailable")


async def test_a_model_without_versions_has_that_of_its_files(client: AsyncClient) -> None:
    version = await version_of(client, model="only")
    assert await version_of(client, model="only", **{PINNED: version}) == version
    headers = {PINNED: f"{version}x"}
    other = await client.post("/predict/only", json={"text": "a"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (404, "model_version_not_found")


async def test_chats_have_versions_and_streams_say_which(client: AsyncClient) -> None:
    for path in ("/chat", "/chat/stream"):
        answer = await client.post(path, json={"query": "hello"}, headers={PINNED: "two"})
        assert answer.status_code == 503  # no weight, and so not loaded
        answer = await client.post(path, json={"query": "hello"})
        assert answer.headers[PINNED] == "one"
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    answer = await client.post("/v1/chat/completions", json=body, headers={PINNED: "three"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_version_not_found"


async def test_the_open_inference_protocol_s_paths_name_versions(client: AsyncClient) -> None:
    found = (await client.get("/v2/models/mood")).json()
    assert found["versions"] == ["1", "2", "3"]
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    for version in found["versions"]:
        path = f"/v2/models/mood/versions/{version}"
        answer = await client.post(f"{path}/infer", json={"inputs": [tensor]})
        assert answer.json()["model_version"] == answer.headers[PINNED] == version
        assert (await client.get(f"{path}/ready")).json()["ready"] is True
    assert (await client.get("/v2/models/mood/versions/9")).status_code == 404


async def test_the_list_of_models_and_metrics_show_versions(client: AsyncClient) -> None:
    listed = {m["name"]: m for m in (await client.get("/models")).json()["models"]}
    assert "versions" not in listed["only"]
    assert listed["mood"]["version"] == "1"
    shown = [
        (one["version"], one["state"], one["weight"], one["serving"], one["shadow"])
        for one in listed["mood"]["versions"]
    ]
    assert shown == [
        ("1", "ready", 90, True, False),
        ("2", "ready", 10, False, False),
        ("3", "ready", 0, False, True),
        ("4", "unloaded", 0, False, False),
    ]
    lines = (await client.get("/metrics")).text.splitlines()
    assert 'mlapi_model_ready{model="mood"} 1.0' in lines
    assert 'mlapi_model_version_ready{model="mood",version="4"} 0.0' in lines
    assert 'mlapi_model_version_share{model="mood",version="2"} 0.1' in lines
    assert any(line.startswith('mlapi_queue_depth{model="mood@2"}') for line in lines)
    assert (await client.get("/ready")).json()["degraded"] == []


async def test_a_key_keeps_its_version(tmp_path: Path) -> None:
    admin = {"X-API-Key": "an-admin-key-of-the-fleet"}
    values = {"auth": "required", "admin_key": admin["X-API-Key"], "default_limit": "1000/minute"}
    models = MODELS.replace("weight = 10", "weight = 90")
    async with serving(tmp_path, models, **values) as client:
        got: list[str] = []
        for number in range(12):
            made = await client.post(
                "/keys", json={"name": "same", "scopes": ["predict"]}, headers=admin
            )
            headers = {"X-API-Key": made.json()["key"]}
            seen = {await version_of(client, str(number * n), **headers) for n in range(3)}
            assert len(seen) == 1
            got += seen
    assert set(got) == {"1", "2"}


async def test_others_take_the_traffic_of_a_version_that_can_t_be_loaded(tmp_path: Path) -> None:
    models = MODELS.replace('{ fail_on = "other" }', "{ fail_load = true }")
    async with serving(tmp_path, models, auth="off") as client:
        got = {await version_of(client, **{"X-Request-ID": f"r{n}"}) for n in range(40)}
        ready = await client.get("/ready")
        listed = (await client.get("/models")).json()["models"][0]["versions"]
    assert got == {"1"}
    assert (ready.status_code, ready.json()["degraded"]) == (200, ["model:mood@2"])
    assert [one["state"] for one in listed] == ["ready", "failed", "ready", "unloaded"]
    assert listed[1]["reason"]
