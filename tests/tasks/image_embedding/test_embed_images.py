"""`/embed-image`, on a tiny model of torch."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from httpx2 import AsyncClient
from pictures import png
from serving import serving
from tiny_images import write

from app.errors import CatalogError
from app.models.catalog import read_catalog

PATH = "/embed-image"
ENTRY = """
[[models]]
name = "vectors-of-images"
task = "image-feature-extraction"
source = "file:{folder}"
engine = "torch"
pooling = "cls"
"""


def text_of(file: bytes) -> str:
    return base64.b64encode(file).decode()


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    folder = write(tmp_path_factory.mktemp("images") / "vit", ending="Model")
    app = tmp_path_factory.mktemp("app")
    async with serving(app, ENTRY.format(folder=folder)) as client:
        yield client


async def test_images_have_a_vector_of_length_1_each(client: AsyncClient) -> None:
    files = [png(seed=seed) for seed in (1, 2, 1)]
    answer = (await client.post(PATH, json={"images": [text_of(file) for file in files]})).json()
    assert (answer["model"], answer["dimensions"]) == ("vectors-of-images", 32)
    first, second, third = np.array(answer["embeddings"])
    assert np.allclose(np.linalg.norm([first, second, third], axis=1), 1, atol=1e-5)
    assert np.allclose(first, third)
    assert not np.allclose(first, second)


async def test_a_form_is_answered_alike(client: AsyncClient) -> None:
    form = await client.post(PATH, files=[("images", ("a.png", png()))])
    listed = await client.post(PATH, json={"images": [text_of(png())]})
    assert form.status_code == 200
    assert form.json() == listed.json()


async def test_an_image_that_cant_be_read_fails_all_and_is_named(client: AsyncClient) -> None:
    answer = await client.post(PATH, json={"images": [text_of(png()), text_of(png()[:50])]})
    assert (answer.status_code, answer.json()["code"]) == (422, "image_unreadable")
    assert answer.json()["detail"].startswith("images[1]: ")


async def test_the_hub_s_name_of_the_task_is_understood(client: AsyncClient) -> None:
    (model,) = (await client.get("/models")).json()["models"]
    assert model["task"] == "image-embedding"


async def test_a_key_s_quota_is_charged_a_token_for_each_image(
    client: AsyncClient, tmp_path: Path
) -> None:
    admin = {"Authorization": "Bearer admin-key-of-this-test-0123456789"}
    folder = write(tmp_path / "vit", ending="Model")
    settings = {"auth": "required", "admin_key": "admin-key-of-this-test-0123456789"}
    async with serving(tmp_path, ENTRY.format(folder=folder), **settings) as guarded:
        body = {"name": "k", "scopes": ["embed"], "tokens_per_day": 2}
        made = (await guarded.post("/keys", json=body, headers=admin)).json()
        key = {"X-API-Key": made["key"]}
        images = {"images": [text_of(png())] * 2}
        assert (await guarded.post(PATH, json=images, headers=key)).status_code == 200
        assert (await guarded.post(PATH, json=images, headers=key)).status_code == 429


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ('task = "image-embedding"\ndimensions = 8', "dimensions is for models of the task"),
        ('task = "image-classification"\npooling = "cls"', "embedding or image-embedding"),
        ('task = "text-classification"\nnormalize = true', "embedding or image-embedding"),
    ],
)
def test_fields_of_vectors_are_for_models_that_have_them(
    tmp_path: Path, fields: str, line: str
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f'[[models]]\nname = "one"\nsource = "file:x"\n{fields}\n')
    with pytest.raises(CatalogError, match=line):
        read_catalog(file)
