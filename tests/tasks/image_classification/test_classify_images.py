"""`/classify-image` and `/classify-image-batch`, on a tiny model of torch."""

import asyncio
import base64
import hashlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from pictures import pictures, png, turned
from serving import make_app, running, serving
from tiny_images import LABELS, pipeline_rows, write

from app.engines.images.items import ImageItem

ONE, MANY = "/classify-image", "/classify-image-batch"
ENTRY = """
[[models]]
name = "pets"
task = "image-classification"
source = "file:{folder}"
engine = "torch"
"""
LATE = 30.0


def text_of(file: bytes) -> str:
    return base64.b64encode(file).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("images") / "vit")


@pytest.fixture(scope="module")
def models(folder: Path) -> str:
    return ENTRY.format(folder=folder)


@pytest.fixture(scope="module")
async def client(
    models: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), models) as client:
        yield client


async def test_an_image_has_the_label_that_transformers_gives_it(
    client: AsyncClient, folder: Path
) -> None:
    files = [pictures()[name] for name in ("JPEG", "JPEG, EXIF 6", "PNG, RGBA", "PNG, 16 bit")]
    for file, row in zip(files, pipeline_rows(folder, files), strict=True):
        answer = (await client.post(ONE, json={"image": text_of(file), "top_k": 3})).json()
        assert answer.keys() == {"label", "score", "model", "scores"}
        assert (answer["model"], answer["label"]) == ("pets", LABELS[row.argmax()])
        assert [one["score"] for one in answer["scores"]] == pytest.approx(
            sorted(row, reverse=True), abs=1e-5
        )
        assert answer["score"] == answer["scores"][0]["score"]


async def test_base64_data_urls_and_forms_are_answered_alike(client: AsyncClient) -> None:
    file = turned(6)
    plain = await client.post(ONE, json={"image": text_of(file), "model_name": "pets", "top_k": 2})
    url = f"data:image/jpeg;base64,{text_of(file)}"
    as_url = await client.post(ONE, json={"image": url, "model_name": "pets", "top_k": 2})
    as_form = await client.post(
        ONE,
        files={"image": ("cat.jpg", file, "image/jpeg")},
        data={"model_name": "pets", "top_k": "2"},
    )
    assert plain.status_code == as_url.status_code == as_form.status_code == 200, as_form.text
    assert plain.json() == as_url.json() == as_form.json()
    assert len(plain.json()["scores"]) == 2


async def test_without_top_k_there_is_only_the_best_label(client: AsyncClient) -> None:
    answer = (await client.post(ONE, json={"image": text_of(png())})).json()
    assert answer.keys() == {"label", "score", "model"}


async def test_many_images_have_a_result_or_an_error_each_in_their_order(
    client: AsyncClient,
) -> None:
    contents = [text_of(png()), "no image", text_of(turned(3)), text_of(png()[:60]), "", "data:,"]
    answer = (await client.post(MANY, json={"images": contents})).json()
    assert answer["model"] == "pets"
    first, second, third, *others = answer["results"]
    assert {first["label"], third["label"]} <= set(LABELS)
    assert {one["error"]["code"] for one in (second, *others)} == {"image_unreadable"}
    assert others[1]["error"]["detail"] == "The image is empty."
    alone = (await client.post(ONE, json={"image": contents[2]})).json()
    assert third["score"] == pytest.approx(alone["score"], abs=1e-5)


async def test_a_form_with_many_files_is_answered_like_a_list(client: AsyncClient) -> None:
    files = [png(seed=seed) for seed in range(3)]
    body = {"images": [text_of(file) for file in files], "top_k": 3}
    form = [("images", (f"{i}.png", file)) for i, file in enumerate(files)]
    as_form = await client.post(MANY, files=form, data={"top_k": "3"})
    assert as_form.json() == (await client.post(MANY, json=body)).json()
    some = await client.post(MANY, files=[form[0], ("images", ("empty.png", b""))])
    good, empty = some.json()["results"]
    assert (good["label"] in LABELS, empty["error"]["code"]) == (True, "image_unreadable")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ["body", "image"]),
        ({"image": ""}, ["body", "image"]),
        ({"image": 1}, ["body", "image"]),
        ({"image": "eA==", "extra": 1}, ["body", "extra"]),
        ({"image": "eA==", "top_k": 0}, ["body", "top_k"]),
        ({"image": "eA==", "top_k": "2"}, ["body", "top_k"]),
    ],
)
async def test_a_body_of_another_shape_names_the_field(
    client: AsyncClient, body: dict[str, Any], place: list[str]
) -> None:
    answer = await client.post(ONE, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"][:2] == place


async def test_a_form_of_another_shape_names_the_field(client: AsyncClient) -> None:
    file = ("a.png", png())
    for fields, place in (
        ({"files": {"picture": file}}, "image"),
        ({"files": {"image": file}, "data": {"top_k": "many"}}, "top_k"),
        ({"files": [("image", file), ("image", file)]}, "image"),
        ({"files": {"image": ("empty.png", b"")}}, "image"),
    ):
        answer = await client.post(ONE, **fields)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert next(error["loc"][1] for error in answer.json()["errors"]) == place, fields


async def test_what_a_body_can_be_sent_as(client: AsyncClient) -> None:
    other = await client.post(ONE, content=png(), headers={"Content-Type": "image/png"})
    assert (other.status_code, other.json()["code"]) == (415, "unsupported_media_type")
    assert other.json()["detail"].endswith("application/json or multipart/form-data.")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (b"no form", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ncut'):
        broken = await client.post(ONE, content=content, headers=headers)
        assert (broken.status_code, broken.json()["code"]) == (400, "malformed_form")
    headers = {"Content-Type": "multipart/form-data"}
    broken = await client.post(ONE, content=b"--x--", headers=headers)
    assert (broken.status_code, broken.json()["code"]) == (400, "malformed_form")


async def test_forms_are_for_routes_with_images_alone(client: AsyncClient) -> None:
    answer = await client.post("/embed", files={"texts": ("a", b"a")})
    assert answer.status_code == 415
    assert answer.json()["detail"].endswith("application/json.")


@pytest.mark.parametrize(
    "content", ["http://127.0.0.1:9/cat.png", "file:///etc/passwd", text_of(b"GIF89a"), "%"]
)
async def test_what_is_no_image_is_unreadable_and_never_fetched(
    client: AsyncClient, content: str
) -> None:
    answer = await client.post(ONE, json={"image": content})
    assert (answer.status_code, answer.json()["code"]) == (422, "image_unreadable")
    assert content not in answer.text


async def test_images_are_bounded_in_pixels_and_bytes(tmp_path: Path, models: str) -> None:
    bounds = {"max_image_pixels": 10_000, "max_image_body_bytes": 60_000}
    async with serving(tmp_path, models, **bounds) as client:
        fits = await client.post(ONE, json={"image": text_of(png((100, 100)))})
        assert fits.status_code == 200
        large = await client.post(ONE, json={"image": text_of(png((101, 100)))})
        assert (large.status_code, large.json()["code"]) == (422, "image_too_large")
        assert "101 times 100 pixels; 10000 are allowed" in large.json()["detail"]
        many = await client.post(MANY, json={"images": [text_of(png((101, 100)))]})
        assert many.json()["results"][0]["error"]["code"] == "image_too_large"
        for path in (ONE, MANY):
            body = await client.post(path, content=b" " * 60_001)
            assert (body.status_code, body.json()["code"]) == (413, "body_too_large")
        other = await client.post("/predict", content=b" " * 60_001)
        assert other.status_code != 413


async def test_too_many_images_are_refused(client: AsyncClient) -> None:
    answer = await client.post(MANY, json={"images": ["eA=="] * 33})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert (await client.post(MANY, json={"images": []})).status_code == 422


async def test_the_log_has_a_digest_and_never_the_image(
    tmp_path: Path, models: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = png(seed=5)
    async with serving(tmp_path, models, log_inputs=True, prediction_input="text") as client:
        with caplog.at_level(logging.INFO):
            await client.post(ONE, json={"image": text_of(file)})
            await client.post(MANY, json={"images": [text_of(file[:80]), "****"]})
        while len(rows := (await client.get("/predictions")).json()["predictions"]) < 3:
            await asyncio.sleep(0.01)
    described = f"image sha256:{hashlib.sha256(file).hexdigest()}, {len(file)} bytes"
    by_input = {row["input"]: row for row in rows}
    good = by_input[described]
    assert (good["task"], good["model"], good["status"]) == ("image-classification", "pets", 200)
    assert good["label"] in LABELS
    assert by_input["image, not read"]["error"] == "image_unreadable"
    lines = " ".join(str(vars(record)) for record in caplog.records)
    assert described in lines
    for text in (lines, json.dumps(rows)):
        assert text_of(file)[:40] not in text


async def test_keys_need_the_scope_that_predict_needs(tmp_path: Path, models: str) -> None:
    admin = "admin-key-of-this-test-0123456789"
    async with serving(tmp_path, models, auth="required", admin_key=admin) as client:
        assert (await client.post(ONE, json={"image": "eA=="})).status_code == 401
        headers = {"Authorization": f"Bearer {admin}"}
        keys = {}
        for scope in ("predict", "chat"):
            made = await client.post(
                "/keys", json={"name": scope, "scopes": [scope]}, headers=headers
            )
            keys[scope] = {"X-API-Key": made.json()["key"]}
        body = {"image": text_of(png())}
        assert (await client.post(ONE, json=body, headers=keys["predict"])).status_code == 200
        assert (await client.post(ONE, json=body, headers=keys["chat"])).status_code == 403


async def test_a_model_that_is_not_there_is_404(client: AsyncClient) -> None:
    answer = await client.post(ONE, json={"image": text_of(png()), "model_name": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


async def test_the_model_is_listed_with_its_labels(client: AsyncClient) -> None:
    (model,) = (await client.get("/models")).json()["models"]
    assert (model["task"], model["engine"], model["device"]) == (
        "image-classification",
        "torch",
        "cpu",
    )
    assert model["labels"] == list(LABELS)


async def test_the_document_has_json_and_forms(client: AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path, field in ((ONE, "image"), (MANY, "images")):
        content = paths[path]["post"]["requestBody"]["content"]
        assert content.keys() == {"application/json", "multipart/form-data"}
        assert field in content["multipart/form-data"]["schema"]["properties"]


async def test_slow_images_end_at_the_deadline_and_keep_no_text_waiting(
    tmp_path: Path, models: str
) -> None:
    text = '[[models]]\nname = "texts"\nengine = "fake"\n'
    app = make_app(tmp_path, models + text, inference_threads=1)
    gate, entered = threading.Event(), threading.Event()
    async with running(app) as client:
        engine = app.state.runtime.registry.entries[0].served.model.engine
        encode = engine.encode

        def slowly(items: Sequence[ImageItem]) -> Any:
            entered.set()
            gate.wait(LATE)
            return encode(items)

        engine.encode = slowly
        body = {"image": text_of(png())}
        slow = asyncio.create_task(
            client.post(ONE, json=body, headers={"X-Request-Timeout-Ms": "300"})
        )
        assert await asyncio.to_thread(entered.wait, LATE)
        long = {"text": "tokenised in a thread, as it is so long " * 40}
        assert (await client.post("/predict", json=long)).status_code == 200
        late = await slow
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        gate.set()
        assert (await client.post(ONE, json=body)).status_code == 200


async def test_what_fails_in_the_model_is_an_error_of_the_engine(
    tmp_path: Path, models: str
) -> None:
    app = make_app(tmp_path, models)
    async with running(app) as client:
        engine = app.state.runtime.registry.entries[0].served.model.engine
        engine._rows = lambda values: np.full((len(values), len(LABELS)), np.nan, np.float32)
        answer = await client.post(ONE, json={"image": text_of(png())})
        assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
        many = await client.post(MANY, json={"images": [text_of(png()), "%"]})
        codes = [result["error"]["code"] for result in many.json()["results"]]
        assert codes == ["inference_failed", "image_unreadable"]
