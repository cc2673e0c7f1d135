"""docs/howto/serve-an-image-model.md: its entries and its requests, with a tiny model."""

import base64
import re
from pathlib import Path
from typing import Any

from pictures import picture, saved
from serving import serving
from tiny_images import write

GUIDE = (Path(__file__).parent.parent / "docs/howto/serve-an-image-model.md").read_text("utf-8")
ENTRIES = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)


async def test_the_entries_of_the_guide_answer_its_requests(tmp_path: Path) -> None:
    write(tmp_path / "pets")
    (entries,) = ENTRIES.findall(GUIDE)
    cat = saved(picture(), "JPEG")
    # Converting takes seconds, and is what other tests are for.
    on_torch = entries.replace("\n[[", 'engine = "torch"\n[[') + 'engine = "torch"\n'
    async with serving(tmp_path, on_torch) as client:
        form: Any = {"files": {"image": ("cat.jpg", cat)}, "data": {"top_k": "2"}}
        answer = (await client.post("/classify-image", **form)).json()
        assert list(answer) == ["label", "score", "model", "scores"]
        body = {"image": base64.b64encode(cat).decode()}
        as_json = (await client.post("/classify-image", json=body)).json()
        assert (as_json["label"], as_json["model"]) == (answer["label"], "pets")
        files = [("images", ("cat.jpg", cat)), ("images", ("notes.txt", b"notes"))]
        many = await client.post("/classify-image-batch", files=files)
        first, second = many.json()["results"]
        assert first["label"] == answer["label"]
        assert second["error"]["detail"] in GUIDE
        form = {"files": files[:1], "data": {"model_name": "looks"}}
        vectors = (await client.post("/embed-image", **form)).json()
        assert (vectors["model"], len(vectors["embeddings"][0])) == ("looks", 32)
