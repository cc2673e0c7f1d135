"""`examples/reranked-search`: trained shortly, served and asked as its README says."""

import json
import re
from pathlib import Path

from example_scripts import EXAMPLES, script_in
from serving import make_app, running
from test_search import store

EXAMPLE = EXAMPLES / "reranked-search"
STEPS = 25  # of 40; it takes seconds


async def test_the_second_model_puts_the_answer_first(tmp_path: Path) -> None:
    script_in(tmp_path, "reranked-search").train(steps=STEPS)
    entries = (EXAMPLE / "models.toml").read_text("utf-8")
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    documents = json.loads(re.findall(r"-d '(\{\"documents\".*?\})'", readme, re.DOTALL)[0])
    plain, ranked = map(json.loads, re.findall(r"-d '(\{\"query\".*)'", readme))
    app = make_app(tmp_path, entries.replace("source =", 'engine = "torch"\nsource ='))
    async with running(app) as client:
        texts = {one["id"]: one["text"] for one in documents["documents"]}
        await store(app, client, texts, embedder="minilm")
        (nearest,) = (await client.post("/search", json=plain)).json()["results"]
        (best,) = (await client.post("/search", json=ranked)).json()["results"]
    assert best["id"] == "year"
    assert best["text"] in readme
    assert nearest["text"] in readme
