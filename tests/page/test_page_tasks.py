"""The tabs made of a form: of the tasks that have a model, and of Python models by their schema."""

import base64
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import expect
from process import Service, service

RED_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO"
    "9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
PETS = [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}]
CLASS = """
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Flat:
    rooms: int
    kind: Literal["house", "flat"]
    has_garden: bool = False
    tags: list[str] = field(default_factory=list)
    place: dict[str, float] | None = None
    note: str | None = None
    photo: bytes | None = None


class Prices:
    def predict_one(self, item: Flat) -> dict[str, str]:
        return {"heard": repr(item)}


class Shout:
    def predict_one(self, item: str) -> str:
        return item.upper()
"""
ENTRIES = """
[[models]]
name = "prices"
engine = "python"
source = "file:model.py:Prices"
isolation = "thread"

[[models]]
name = "shout"
engine = "python"
source = "file:model.py:Shout"
isolation = "thread"

[[models]]
name = "broken"
engine = "python"
source = "file:model.py:Nothing"
required = false
isolation = "thread"
"""


def test_entities_are_marked_where_the_service_found_them(visiting: Any, served: Service) -> None:
    visit = visiting(path="/#entities")
    text = "😀 Ada Lovelace lived in <b>London</b>."  # an emoji is one character to the service
    visit.page.get_by_role("tabpanel").get_by_label("Text", exact=True).fill(text)
    visit.page.get_by_role("button", name="Find").click()
    answer = httpx2.post(f"{served.url}/ner", json={"text": text}).json()
    assert len(answer["entities"]) > 1
    marks = visit.page.locator("#entities mark")
    expect(marks.locator("bdi")).to_have_text([one["text"] for one in answer["entities"]])
    expect(marks.locator("small")).to_have_text([one["label"] for one in answer["entities"]])
    expect(visit.page.locator("#entities .result")).to_contain_text("</b>")
    expect(visit.page.locator("#entities .foot")).to_contain_text("names, ")


def test_texts_are_ranked_labelled_and_compared(visiting: Any, served: Service) -> None:
    visit = visiting(path="/#rerank")
    page = visit.page
    texts = ["one <i>text</i>", "another", "a third"]
    page.get_by_label("Query").fill("which one?")
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    page.get_by_role("button", name="Rank").click()
    body: dict[str, Any] = {"query": "which one?", "documents": texts}
    ranked = httpx2.post(f"{served.url}/rerank", json=body).json()["results"]
    expect(page.locator("#rerank .passage")).to_have_text([texts[r["index"]] for r in ranked])

    visit.open("Zero-shot")
    page.get_by_label("Labels, one a line").fill("up\ndown\n\n sideways ")
    page.get_by_role("button", name="Label").click()
    expect(page.locator("#zero-shot .bar")).to_have_count(3)
    (sent,) = visit.sent("/zero-shot")
    assert sent.post_data_json["labels"] == ["up", "down", "sideways"]
    expect(page.locator("#zero-shot .bar .label").first).to_have_text(
        httpx2.post(f"{served.url}/zero-shot", json=sent.post_data_json).json()["label"]
    )

    visit.open("Similarity")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#similarity .passage")).to_have_count(3)


def test_an_image_is_shown_with_its_labels(visiting: Any, tmp_path: Path) -> None:
    visit = visiting()
    page = visit.page
    models = [
        {"name": name, "task": f"image-{task}", "state": "ready", "default": True}
        for name, task in (("pets", "classification"), ("dino", "embedding"))
    ]
    page.route("**/models", lambda route: route.fulfill(json={"models": models}))
    page.route(
        "**/classify-image",
        lambda route: route.fulfill(json={**PETS[0], "model": "pets", "scores": PETS}),
    )
    vectors = {"model": "dino", "dimensions": 2, "embeddings": [[1, 0], [0.6, 0.8]]}
    page.route("**/embed-image", lambda route: route.fulfill(json=vectors))
    page.reload()
    expect(page.get_by_role("tab")).to_have_text(["Images", "Image vectors", "More", "Status"])
    file = tmp_path / "dot.png"
    file.write_bytes(RED_DOT)
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Image: choose a file first.")
    page.get_by_label("Image", exact=True).set_input_files(file)
    picture = page.get_by_role("img", name="Image 1")
    expect(picture).to_be_visible()
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 5
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator("#image .bar .label")).to_have_text(["cat", "dog"])
    (sent,) = visit.sent("/classify-image")
    encoded = base64.b64encode(RED_DOT).decode()
    assert sent.post_data_json == {"image": f"data:image/png;base64,{encoded}", "top_k": 5}

    visit.open("Image vectors")
    page.get_by_role("tabpanel").get_by_label("Images").set_input_files([file, file])
    page.get_by_role("button", name="Embed").click()
    expect(page.locator("#image-vectors figcaption")).to_have_text(["1.000", "0.600"])


def test_the_form_of_a_class_that_was_changed_is_made_anew(visiting: Any, tmp_path: Path) -> None:
    file, entry = tmp_path / "model.py", ENTRIES.split("\n\n", maxsplit=1)[0]
    file.write_text(CLASS, encoding="utf-8")
    with service(tmp_path, entry, features="page", reload_models="true") as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#python")
        page = visit.page
        page.get_by_label("Rooms").fill("3")
        file.write_text(CLASS.replace("rooms: int", "windows: int"), encoding="utf-8")
        visit.expects_failures = True
        while not page.get_by_role("alert").is_visible():  # until the class is loaded
            page.get_by_role("button", name="Send").first.click()
            page.wait_for_timeout(100)
        expect(page.get_by_label("Windows")).to_be_visible()
        expect(page.get_by_label("Rooms")).to_have_count(0)
        file.write_text(CLASS, encoding="utf-8")

        while not page.get_by_label("Rooms").is_visible():
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            page.wait_for_timeout(100)
        expect(page.get_by_label("Windows")).to_have_count(0)


def test_a_python_model_has_a_form_made_of_its_schema(visiting: Any, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(CLASS, encoding="utf-8")
    with service(tmp_path, ENTRIES, features="page") as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#python")
        page = visit.page
        expect(page.get_by_role("tab")).to_have_text(["Your models", "More", "Status"])
        page.get_by_label("Rooms").fill("3")
        page.get_by_label("Kind").select_option("flat")
        page.get_by_label("Has Garden").check()
        page.get_by_label("Tags, one a line").fill("old\nquiet")
        page.get_by_label("Place, as JSON").fill('{"lat": 1.5}')
        page.get_by_role("button", name="Send").first.click()
        answer = page.locator("#python .json")
        expect(answer).to_contain_text(
            "Flat(rooms=3, kind='flat', has_garden=True, tags=['old', 'quiet'],"
            " place={'lat': 1.5}, note=None, photo=None)"
        )
        page.get_by_label("Place, as JSON").fill("{")
        page.get_by_role("button", name="Send").first.click()
        expect(page.get_by_role("alert")).to_have_text("Place, as JSON: this is no JSON.")
        page.get_by_label("Place, as JSON").fill("")
        page.get_by_label("Rooms").fill("")
        visit.expects_failures = True
        page.get_by_role("button", name="Send").first.click()
        expect(page.get_by_role("alert")).to_contain_text("rooms: ")
        visit.choose("shout")
        page.get_by_role("tabpanel").get_by_label("Request").fill("quiet")
        page.get_by_role("button", name="Send").first.click()
        expect(answer).to_have_text('"QUIET"')
        visit.choose("broken")
        page.get_by_role("button", name="Send").first.click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert visit.sent("/predict/broken")
        visit.open("More")
        expect(page.get_by_label("Route").get_by_role("option")).to_have_text(
            ["/predict-batch/prices", "/predict-batch/shout"]
        )
