"""The models that ship with the service, loaded for real: no hub, no account, right answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from converted import CONVERTED
from httpx2 import AsyncClient
from serving import AllSettings, fail, running

from app.main import create_app

LOAD_TIMEOUT_S = 600  # it is converted the first time
CLEAR = {
    "A wonderful film, moving and beautifully played.": "POSITIVE",
    "The best phone that I have ever had.": "POSITIVE",
    "I love it, thank you so much!": "POSITIVE",
    "A dull, lifeless waste of two hours.": "NEGATIVE",
    "It broke after a week and nobody answers my mails.": "NEGATIVE",
    "The worst meal I have ever had.": "NEGATIVE",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    # Converted models are kept where `make serve` keeps them: that is done once, not for each run.
    settings = AllSettings(
        _env_file=None, data_dir=tmp_path_factory.mktemp("data"), model_cache_dir=CONVERTED
    )
    app = create_app(settings, on_fatal=lambda failure: fail(app, failure))
    async with running(app) as client:
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            while (await states(client))["ner"] not in {"ready", "failed"}:
                await asyncio.sleep(0.1)  # /ready doesn't wait for it
        yield client


async def states(client: AsyncClient) -> dict[str, str]:
    models = (await client.get("/models")).json()["models"]
    return {model["name"]: model["state"] for model in models}


async def test_clear_texts_get_the_label_that_a_reader_would_give(client: AsyncClient) -> None:
    answer = await client.post("/predict-batch", json={"texts": list(CLEAR)})
    labels = [result["label"] for result in answer.json()["results"]]
    assert dict(zip(CLEAR, labels, strict=True)) == CLEAR


async def test_clear_names_are_found_where_they_stand(client: AsyncClient) -> None:
    text = "Maria Gonzalez moved from Berlin to Madrid to work for Siemens."
    answer = await client.post("/ner", json={"text": text, "aggregation": "first"})
    found = {entity["text"]: entity for entity in answer.json()["entities"]}
    labels = {name: entity["label"] for name, entity in found.items()}
    assert labels == {
        "Maria Gonzalez": "PER",
        "Berlin": "LOC",
        "Madrid": "LOC",
        "Siemens": "ORG",
    }
    assert all(text[e["start"] : e["end"]] == name for name, e in found.items())


async def test_a_text_s_score_does_not_depend_on_its_batch_mates(client: AsyncClient) -> None:
    texts = [text * repeat for text in CLEAR for repeat in (1, 3, 9)]
    batch = (await client.post("/predict-batch", json={"texts": texts})).json()["results"]
    for text, in_batch in zip(texts, batch, strict=True):
        alone = (await client.post("/predict", json={"text": text})).json()
        assert alone["label"] == in_batch["label"]
        assert alone["score"] == pytest.approx(in_batch["score"], abs=5e-3)


async def test_models_shows_where_they_come_from(client: AsyncClient) -> None:
    models = {m["name"]: m for m in (await client.get("/models")).json()["models"]}
    assert set(models) == {"sentiment", "minilm", "ner", "smollm2"}
    for model in models.values():
        assert model["state"] == "ready"
        assert model["engine"] in {"openvino", "torch", "llama_cpp"}
        assert model["version"] in {"0.1.0", "0.1.2"}
        assert model["default"]
        assert model["required"] is (model["name"] != "ner")
    assert models["sentiment"]["labels"] == ["NEGATIVE", "POSITIVE"]


async def test_an_embedder_is_no_classifier(client: AsyncClient) -> None:
    answer = await client.post("/predict/minilm", json={"text": "x"})
    assert answer.status_code == 404


def test_every_model_folder_that_ships_has_a_card() -> None:
    adapters = Path(__file__).parent.parent / "app/models/adapters"
    for adapter in adapters.iterdir():
        card = (adapter / "README.md").read_text(encoding="utf-8")
        for section in ("## Accuracy", "## Known failures", "## Data"):
            assert section in card
