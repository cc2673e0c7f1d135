"""`examples/ner`: trained, served and asked as its README says."""

import json
import re
from pathlib import Path

from example_scripts import EXAMPLES, script_in
from serving import serving

EXAMPLE = EXAMPLES / "ner"


async def test_it_finds_the_names_of_its_readme(tmp_path: Path) -> None:
    script_in(tmp_path, "ner").train(steps=150)
    entry = (EXAMPLE / "models.toml").read_text("utf-8")
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    found = re.search(r"-d '(.*)'\n(.*)\n", readme)
    assert found
    async with serving(tmp_path, entry + 'engine = "torch"\n') as client:
        answer = (await client.post("/ner", json=json.loads(found[1]))).json()
    shown = json.loads(found[2])
    for one, expected in zip(answer["entities"], shown["entities"], strict=True):
        assert 0.5 < one.pop("score") <= 1
        assert expected.pop("score")
        assert one == expected
