"""The Open Inference Protocol: metadata, tensors as JSON and as bytes, and what is refused."""

import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient, Response
from serving import serving

MODELS = """
[[models]]
name = "mood"
engine = "fake"
fake = { fail_on = "poison" }

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"

[[models]]
name = "best"
task = "text-ranking"
engine = "fake"

[[models]]
name = "echo"
task = "chat"
engine = "fake"

[[models]]
name = "broken"
engine = "fake"
fake = { fail_load = true }
required = false
"""
TEXTS = ["Ada saw it.", "", "Zoë didn't."]
HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("tensors"), MODELS, auth="off") as client:
        yield client


def tensor(*texts: str, name: str = "text", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts), **more}


async def infer(client: AsyncClient, model: str, *inputs: Any, **more: Any) -> Response:
    return await client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **more})


def outputs_of(answer: Response) -> dict[str, Any]:
    """Return the tensors of an answer in either form."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER, len(answer.content)))
    place, found = length, {}
    for output in json.loads(answer.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        data = output.get("data")
        if size is not None:
            raw = answer.content[place : place + size]
            place += size
            is_text = output["datatype"] == "BYTES"
            data = texts_in(raw) if is_text else np.frombuffer(raw, "<f4")
        kind = object if output["datatype"] == "BYTES" else np.float32
        found[output["name"]] = np.array(data, dtype=kind).reshape(output["shape"])
    assert place == len(answer.content)
    return found


def texts_in(raw: bytes) -> list[str]:
    texts = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return texts


def packed(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)


async def test_a_model_says_its_tensors_and_answers_them_as_the_own_route_does(
    client: AsyncClient,
) -> None:
    said = (await client.get("/v2/models/mood")).json()
    assert said["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [(one["name"], one["shape"]) for one in said["outputs"]] == [
        ("scores", [-1, 2]),
        ("label", [-1]),
    ]
    (version,) = said["versions"]
    text = TEXTS[2]
    body = {"id": "7", "model_name": "mood", "inputs": [tensor(text, text)]}
    answer = await client.post(f"/v2/models/mood/versions/{version}/infer", json=body)
    found = outputs_of(answer)
    own = (await client.post("/predict", json={"text": text, "top_k": 2})).json()
    assert answer.json()["id"] == "7"
    assert found["label"].tolist() == [own["label"]] * 2
    assert found["scores"].max(axis=1) == pytest.approx([own["score"]] * 2)
    (row,) = (await client.post("/embed", json={"texts": [text]})).json()["embeddings"]
    np.testing.assert_allclose(
        outputs_of(await infer(client, "vectors", tensor(text)))["embedding"], [row], atol=1e-6
    )
    ranked = outputs_of(await infer(client, "best", tensor(text, name="query"), tensor(*TEXTS)))
    own = (await client.post("/rerank", json={"query": text, "documents": TEXTS})).json()
    expected = {one["index"]: one["relevance_score"] for one in own["results"]}
    assert ranked["score"] == pytest.approx([expected[index] for index in range(3)])


async def test_bytes_say_the_same_as_json(client: AsyncClient) -> None:
    data = packed("a", "Zoë")
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "text",
                    "shape": [2, 1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    answer = await client.post(
        "/v2/models/mood/infer", content=head + data, headers={HEADER: str(len(head))}
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    plain = outputs_of(await infer(client, "mood", tensor("a", "Zoë")))
    found = outputs_of(answer)
    np.testing.assert_array_equal(found["scores"], plain["scores"])
    assert found["label"].tolist() == plain["label"].tolist()
    wanted = [{"name": "label", "parameters": {"binary_data": True}}]
    only = await infer(client, "mood", tensor("a"), outputs=wanted)
    assert outputs_of(only).keys() == {"label"}


@pytest.mark.parametrize(
    ("inputs", "more", "status", "says"),
    [
        ([tensor("a", shape=[2])], {}, 422, "shape"),
        ([tensor("a", name="query")], {}, 422, "takes each of text once"),
        ([tensor("a"), tensor("b")], {}, 422, "once"),
        ([], {}, 422, "inputs"),
        ([tensor()], {}, 422, "1 to 256"),
        ([tensor(1)], {}, 422, "Not a list of texts"),  # type: ignore[arg-type]
        ([tensor("a", datatype="FP32")], {}, 422, "datatype"),
        ([tensor("a", parameters={"shared_memory_region": "r"})], {}, 422, "shared_memory_region"),
        ([tensor("a")], {"parameters": {"config": "{}"}}, 422, "parameters.config"),
        ([tensor("a")], {"outputs": [{"name": "none"}]}, 422, "scores, label"),
        ([tensor("a")], {"model_name": "vectors"}, 409, "different models"),
        ([tensor("a")], {"model_version": "other"}, 404, "no such version"),
        ([tensor("")], {}, 422, "empty"),
        ([tensor("poison")], {}, 500, "text[0]"),
    ],
)
async def test_what_cannot_be_done_is_refused_in_the_protocol_s_form(
    client: AsyncClient, inputs: Any, more: Any, status: int, says: str
) -> None:
    answer = await infer(client, "mood", *inputs, **more)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("size", "data", "length"),
    [(5, packed("a"), 1), (9, packed("a"), 0), (3, packed("a")[:3], 0), (5, b"\x01\0\0\0\xff", 0)],
)
async def test_bytes_that_are_no_texts_are_refused(
    client: AsyncClient, size: int, data: bytes, length: int
) -> None:
    one = {"name": "text", "shape": [1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [one | {"parameters": {"binary_data_size": size}}]}).encode()
    headers = {HEADER: str(len(head) + length * 1_000)}
    answer = await client.post("/v2/models/mood/infer", content=head + data, headers=headers)
    assert answer.status_code == 422, answer.text


async def test_probes_and_models_that_are_not_there(client: AsyncClient) -> None:
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    assert "binary_tensor_data" in (await client.get("/v2")).json()["extensions"]
    assert (await client.get("/v2/models/mood/ready")).json() == {"name": "mood", "ready": True}
    for path, status in (
        ("none", 404),
        ("mood/versions/other", 404),
        ("mood/versions/other/ready", 404),
        ("broken/ready", 503),
        ("echo", 400),
    ):
        answer = await client.get(f"/v2/models/{path}")
        assert (answer.status_code, set(answer.json())) == (status, {"error"}), path
