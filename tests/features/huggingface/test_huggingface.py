"""Hugging Face's dialects: what its own client reads, TEI's forms, and how errors look."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from process import UNMEASURED, service
from serving import serving

MODELS = "".join(
    f'\n[[models]]\nname = "{name}"\ntask = "{task}"\nengine = "fake"\n{more}\n'
    for name, task, more in (
        ("mood", "text-classification", 'fake = { fail_on = "poison" }'),
        ("vectors", "embedding", "limits = { max_tokens = 40 }"),
        ("names", "token-classification", ""),
        ("nli", "zero-shot-classification", ""),
        ("best", "text-ranking", ""),
        ("echo", "chat", ""),
    )
)
TEXT = "Ada saw it."


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("hub"), MODELS, auth="off") as client:
        yield client


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    with service(folder, MODELS, log_level="warning", auth="off", **UNMEASURED) as running:
        running.wait_ready()
        yield running.url


def test_the_hub_s_own_client_does_its_tasks(url: str) -> None:
    def client(path: str = "") -> InferenceClient:
        return InferenceClient(base_url=url + path)

    (best, other) = client().text_classification(TEXT)
    assert best.score > other.score
    assert len(client("/hf/mood").text_classification(TEXT, top_k=1)) == 1
    assert client("/hf/vectors").feature_extraction(TEXT).shape == (1, 384)
    assert client().feature_extraction(TEXT, normalize=True).shape == (1, 384)
    (found,) = client("/hf/names").token_classification(TEXT)
    assert (found.entity_group, found.word, found.start, found.end) == ("PER", "Ada", 0, 3)
    (found,) = client().token_classification(TEXT, aggregation_strategy="none")
    assert found.entity == "B-PER"
    labelled = client().zero_shot_classification(TEXT, ["a", "b"], multi_label=True)
    assert {one.label for one in labelled} == {"a", "b"}
    same, _ = client().sentence_similarity(TEXT, [TEXT, "Something else"])
    assert same == pytest.approx(1)
    for path in ("", "/hf/echo"):
        answer = client(path).chat_completion([{"role": "user", "content": TEXT}])
        assert answer.choices[0].message.content == TEXT
    with pytest.raises(HfHubHTTPError, match="404"):
        client("/hf/nothing").text_classification(TEXT)


@pytest.mark.parametrize("name", ["dummy", "tgi", "http://localhost:8000", "https://a.example/b"])
async def test_what_hub_clients_send_for_no_model_is_the_default_one(
    client: AsyncClient, name: str
) -> None:
    body = {"messages": [{"role": "user", "content": TEXT}], "model": name}
    answer = (await client.post("/v1/chat/completions", json=body)).json()
    assert answer["choices"][0]["message"]["content"] == TEXT
    other = await client.post("/v1/chat/completions", json={**body, "model": "localhost"})
    assert other.status_code == 404


async def test_plain_inputs_go_to_the_classifier_and_several_are_lists(client: AsyncClient) -> None:
    answer = await client.post("/", json={"inputs": [TEXT, "b"], "parameters": {"top_k": 1}})
    assert answer.status_code == 200, answer.text
    assert [len(one) for one in answer.json()] == [1, 1]
    own = (await client.post("/predict", json={"text": TEXT})).json()
    assert answer.json()[0][0] == {"label": own["label"], "score": own["score"]}


async def tei(client: AsyncClient, path: str, **body: Any) -> Any:
    answer = await client.post(f"/tei/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_tei_s_forms(client: AsyncClient) -> None:
    (vector,) = await tei(client, "embed", inputs=TEXT, normalize=True, truncate=True)
    own = (await client.post("/embed", json={"texts": [TEXT]})).json()["embeddings"]
    np.testing.assert_array_equal(vector, own[0])
    flat = await tei(client, "predict", inputs=TEXT, raw_scores=False)
    assert (await tei(client, "predict", inputs=[[TEXT], ["b"]]))[0] == flat
    ranked = await tei(client, "rerank", query="a", texts=["b", "c"], return_text=True)
    assert {one["text"] for one in ranked} == {"b", "c"}
    assert ranked[0]["score"] >= ranked[1]["score"]
    assert (await tei(client, "tokenize", inputs="Hé"))[0] == [
        {"id": byte, "text": text, "special": False, "start": start, "stop": start + 1}
        for byte, text, start in ((72, "H", 0), (195, "é", 1), (169, "é", 1))
    ]
    info = (await client.get("/tei/info")).json()
    assert (info["model_id"], info["max_input_length"]) == ("vectors", 40)
    assert "embedding" in info["model_type"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/", {"inputs": ""}, 422, "The text is empty."),
        ("/", {"inputs": "poison"}, 500, "The engine failed on inputs[0]."),
        ("/", {"inputs": "a", "parameters": {"top_n": 1}}, 422, "parameters.top_n: "),
        ("/", {"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}}, 400, "softmax"),
        ("/hf/none", {"inputs": "a"}, 404, ""),
        ("/hf/echo", {"inputs": "a"}, 400, "task chat"),
        ("/hf/mood", [1], 422, ""),
        ("/tei/embed", {"inputs": "a" * 50, "truncate": False}, 422, "truncate is false"),
        ("/tei/embed", {"inputs": "a", "truncation_direction": "Left"}, 400, "not supported"),
        ("/tei/predict", {"inputs": [["a", "b"], ["c"]]}, 422, "either single texts or pairs"),
        ("/tei/none", {"inputs": "a"}, 404, ""),
    ],
)
async def test_errors_have_the_dialect_s_form_and_our_status(
    client: AsyncClient, path: str, body: Any, status: int, says: str
) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()
    assert says in error["error"]
    kind = {400: "Validation", 404: "Validation", 422: "Validation", 500: "Backend"}[status]
    assert error.get("error_type") == (kind if path.startswith("/tei") else None)


async def test_other_methods_and_the_page_stay_as_they_are(client: AsyncClient) -> None:
    assert (await client.get("/")).headers["content-type"].startswith("text/html")
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert [path for path in paths if path == "/" or path.startswith(("/hf", "/tei"))] == []


async def test_a_key_needs_the_scope_of_the_task_that_the_body_is_for(tmp_path: Path) -> None:
    async with serving(tmp_path, MODELS, auth="required", admin_key="x" * 40) as client:
        assert (await client.post("/", json={"inputs": "a"})).status_code == 401
        admin = {"Authorization": "Bearer " + "x" * 40}
        made = await client.post("/keys", headers=admin, json={"name": "p", "scopes": ["predict"]})
        key = {"Authorization": f"Bearer {made.json()['key']}"}
        for body, status in (({"inputs": "a"}, 200), ({"inputs": "a", "normalize": True}, 403)):
            answer = await client.post("/", headers=key, json=body)
            assert answer.status_code == status, answer.text
        assert (await client.get("/tei/info")).status_code == 401
