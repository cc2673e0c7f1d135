"""docs/howto/rank-and-label.md: its entries and its requests, on an engine without weights."""

import json
import re
from pathlib import Path
from typing import Any

from serving import serving

GUIDE = (Path(__file__).parent.parent / "docs/howto/rank-and-label.md").read_text("utf-8")
ENTRIES = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
REQUESTS = re.compile(r"^curl localhost:8000(\S+) .*? -d '(.*?)'$", re.MULTILINE | re.DOTALL)
ANSWERS = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
OF_PAIRS = '\n[[models]]\nname = "nli-labels"\nengine = "fake"\n'


def shape(value: Any) -> Any:
    """Return the fields of an answer without its values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


async def test_the_guide_s_requests_are_answered_in_the_form_that_it_shows(tmp_path: Path) -> None:
    (entries,) = ENTRIES.findall(GUIDE)
    on_fake = re.sub(r"^source = .*$", 'engine = "fake"', entries, flags=re.MULTILINE)
    shown = [json.loads(answer) for answer in ANSWERS.findall(GUIDE)]
    async with serving(tmp_path, on_fake + OF_PAIRS) as client:
        answers = []
        for path, body in REQUESTS.findall(GUIDE):
            answer = await client.post(path, json=json.loads(body))
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
    assert len(answers) == 3
    for answer, example in zip(answers, shown, strict=False):
        assert shape(answer) == shape(example)
